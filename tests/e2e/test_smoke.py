import asyncio
from pathlib import Path
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess
from tests.support.captures import find_capture
from tests.support.consumers import *
async def test_x(tmp_path: Path) -> None:
    import time
    t=time.time()
    with KafkaBroker(tmp_path/"k") as k, NatsBroker(tmp_path/"n") as n:
        print("brokers", time.time()-t); t=time.time()
        with BridgeProcess(tmp_path/"b", {"BRIDGE_NATS__SERVERS": n.url, "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": k.bootstrap}) as b:
            print("start", time.time()-t); t=time.time()
            b.wait_ready()
            print("ready", time.time()-t); t=time.time()
            c = find_capture("gap-long")
            await c.play(b.feed_port)
            m = await b.delivered(len(c.events()))
            print("delivered", time.time()-t, m.accepted, b.ready()); t=time.time()
            r = await read_stream(n.url)
            print(len(r), kinds(r), r[0], time.time()-t); t=time.time()
            q = await read_topics(k.bootstrap, "factom")
            print({a: len(x) for a, x in q.items()},time.time()-t); t=time.time()
            b.stop()
            print("stop",time.time()-t)
            print(b.logged())
