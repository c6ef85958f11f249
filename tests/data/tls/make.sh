#!/bin/sh
# Makes the certificates of this folder anew: for tests on 127.0.0.1, worthless elsewhere.
# They stand in the repository because neither Python nor a bare machine can make them.
# Each file holds a key (but for the authority's, which is thrown away) and its certificate.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
days=36500

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$1.key"; }

authority() {
    key "$1"
    openssl req -x509 -new -key "$work/$1.key" -days $days -subj "/CN=factom-bridge tests, $1" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$1.pem"
}

# signed NAME AUTHORITY SAN
signed() {
    key "$1"
    openssl req -new -key "$work/$1.key" -subj "/CN=$1" -out "$work/$1.csr"
    cat >"$work/$1.ext" <<END
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$3
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
END
    openssl x509 -req -in "$work/$1.csr" -CA "$2.pem" -CAkey "$work/$2.key" \
        -CAcreateserial -CAserial "$work/serial" -days $days -extfile "$work/$1.ext" \
        -out "$work/$1.crt"
    cat "$work/$1.key" "$work/$1.crt" >"$1.pem"
}

authority authority
authority stranger
signed server authority IP:127.0.0.1,DNS:localhost
signed client authority IP:127.0.0.1,DNS:localhost
signed sender authority DNS:Node-1.Example,URI:spiffe://factom/node/1
signed intruder stranger DNS:node-1.example,URI:spiffe://factom/node/1

# The client's key, locked with a word that the tests of secrets look for everywhere.
openssl pkcs8 -topk8 -in client.pem -v2 aes-256-cbc -passout pass:Kanarienvogel-locked -out "$work/locked.key"
openssl x509 -in client.pem -out "$work/locked.crt"
cat "$work/locked.key" "$work/locked.crt" >locked.pem
