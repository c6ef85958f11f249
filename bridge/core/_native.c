/* What is done for each event of the feed, where Python's own speed would be the limit.
 *
 * Functions for the steps that see every event. They know the form in which nodes send commits, reveals,
 * state changes and minutes, and of all kinds that which protobuf's serialiser writes. What is not exactly of
 * that form they leave to the Python beside them (`framing`, `decode`, `render`, `asjson`, `peek`, `hashing`,
 * `binary.credits`, `natswire`, `kafkawire`), the long way, which is the reference. So nothing here has to
 * judge damaged input: it only has to recognise what is sound. tests/properties/test_native_properties.py
 * holds the two together.
 *
 * Each pointer into bytes is a View, and every read from one is checked against its end.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define HASH 32
#define FRAME_HEADER 5
#define LARGEST_PAYLOAD 65536 /* a larger one gains nothing here */
#define LAST_SECOND 253402300799ULL /* 9999-12-31T23:59:59: what RFC 3339 can say */

typedef struct {
    const uint8_t *at, *end;
} View;

/* whole(buffer, limit) -> (count, end)
 *
 * Return how many whole frames stand at the buffer's beginning, with payloads of at most `limit`
 * bytes, and where they end. */

static uint32_t payload_size(const uint8_t *header)
{
    return header[1] | header[2] << 8 | header[3] << 16 | (uint32_t)header[4] << 24;
}

static PyObject *whole(PyObject *self, PyObject *args)
{
    Py_buffer buffer;
    Py_ssize_t limit, count = 0;
    if (!PyArg_ParseTuple(args, "y*n", &buffer, &limit))
        return NULL;
    const uint8_t *start = buffer.buf, *at = start, *end = start + buffer.len;
    while (end - at >= FRAME_HEADER && at[0] == 1) {
        uint32_t size = payload_size(at);
        if (limit < 0 || size > INT32_MAX || size > (size_t)limit || size > end - at - FRAME_HEADER)
            break;
        at += FRAME_HEADER + size;
        count++;
    }
    Py_ssize_t taken = at - start;
    PyBuffer_Release(&buffer);
    return Py_BuildValue("nn", count, taken);
}

/* Reading protobuf, in the one form that its serialiser writes */

static int varint(View *view, uint64_t *value)
{
    uint64_t found = 0;
    for (int shift = 0; view->at < view->end && shift < 63; shift += 7) {
        uint8_t byte = *view->at++;
        found |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *value = found;
            return byte || !shift;
        }
    }
    return 0;
}

static int comes(View *view, uint8_t tag)
{
    if (view->at == view->end || *view->at != tag)
        return 0;
    view->at++;
    return 1;
}

/* A number that is not zero, and at most `most`; 0 where it is left out. */
static int number(View *view, uint8_t tag, uint64_t most, uint64_t *value)
{
    *value = 0;
    return !comes(view, tag) || (varint(view, value) && *value && *value <= most);
}

static int slice(View *view, View *part)
{
    uint64_t size;
    if (!varint(view, &size) || size > (uint64_t)(view->end - view->at))
        return 0;
    part->at = view->at;
    part->end = view->at += size;
    return 1;
}

/* Bytes that are not empty; an empty view where they are left out. */
static int octets(View *view, uint8_t tag, View *part)
{
    part->at = part->end = view->at;
    return !comes(view, tag) || (slice(view, part) && part->at < part->end);
}

typedef struct {
    View hash;                          /* what the event is about: key and subject */
    View chain;                         /* of a reveal */
    View entry, weld, payer, signature; /* of a commit; the weld that of a chain's */
    uint64_t state, seconds, nanos, credits, version;
    uint64_t height; /* of a process-list event */
} Facts;

static int instant(View *view, Facts *facts)
{
    View part;
    return slice(view, &part) && number(&part, 0x08, LAST_SECOND, &facts->seconds) &&
           number(&part, 0x10, 999999999, &facts->nanos) && part.at == part.end;
}

static int timestamp(View *view, uint8_t tag, Facts *facts)
{
    facts->seconds = facts->nanos = 0;
    return !comes(view, tag) || instant(view, facts);
}

enum {
    CHAIN_COMMIT = 0x22,
    ENTRY_COMMIT = 0x2A,
    ENTRY_REVEAL = 0x32,
    STATE_CHANGE = 0x3A,
    PROCESS_LIST = 0x4A
};

static int entry(View *view, Facts *facts)
{
    View part, ignored;
    uint64_t version;
    if (!comes(view, 0x12) || !slice(view, &part) || !octets(&part, 0x0A, &facts->hash))
        return 0;
    while (comes(&part, 0x12))
        if (!slice(&part, &ignored))
            return 0;
    return octets(&part, 0x1A, &ignored) && number(&part, 0x20, UINT32_MAX, &version) &&
           octets(&part, 0x2A, &facts->chain) && part.at == part.end;
}

/* A new block, or a minute of it. */
static int process_list(View *view, Facts *facts)
{
    View part;
    uint64_t minute;
    if (comes(view, 0x0A))
        return slice(view, &part) && number(&part, 0x08, UINT32_MAX, &facts->height) &&
               part.at == part.end;
    return comes(view, 0x12) && slice(view, &part) && number(&part, 0x08, UINT32_MAX, &minute) &&
           number(&part, 0x10, UINT32_MAX, &facts->height) && part.at == part.end;
}

/* Say whether the member is of the one form, and what it tells. The numbers are those of
 * proto/eventmessages/factomEvents.proto. */
static int member(uint8_t kind, View view, Facts *facts)
{
    uint64_t other;
    int fits;
    facts->state = facts->seconds = facts->nanos = 0;
    switch (kind) {
    case CHAIN_COMMIT:
        fits = number(&view, 0x08, INT32_MAX, &facts->state) && octets(&view, 0x12, &facts->hash) &&
               octets(&view, 0x1A, &facts->entry) && octets(&view, 0x22, &facts->weld) &&
               timestamp(&view, 0x2A, facts) && number(&view, 0x30, UINT32_MAX, &facts->credits) &&
               octets(&view, 0x3A, &facts->payer) && octets(&view, 0x42, &facts->signature) &&
               number(&view, 0x48, UINT32_MAX, &facts->version);
        break;
    case ENTRY_COMMIT:
        fits = number(&view, 0x08, INT32_MAX, &facts->state) && octets(&view, 0x12, &facts->hash) &&
               timestamp(&view, 0x1A, facts) && number(&view, 0x20, UINT32_MAX, &facts->credits) &&
               octets(&view, 0x2A, &facts->payer) && octets(&view, 0x32, &facts->signature) &&
               number(&view, 0x38, UINT32_MAX, &facts->version);
        break;
    case ENTRY_REVEAL:
        fits = number(&view, 0x08, INT32_MAX, &facts->state) && entry(&view, facts) &&
               timestamp(&view, 0x1A, facts) && facts->chain.end - facts->chain.at == HASH;
        break;
    case STATE_CHANGE:
        fits = octets(&view, 0x0A, &facts->hash) &&
               number(&view, 0x10, INT32_MAX, &facts->state) &&
               number(&view, 0x18, UINT32_MAX, &other);
        break;
    case PROCESS_LIST:
        return process_list(&view, facts) && view.at == view.end;
    default:
        return 0;
    }
    return fits && view.at == view.end && facts->hash.end - facts->hash.at == HASH;
}

typedef struct {
    View envelope; /* what comes before the member, its tag included */
    View member;
    const uint8_t *next;
    uint8_t kind;
} Frame;

/* Find the frame at the view's beginning. 0: it is not for us. */
static int frame_of(View frames, Frame *frame)
{
    if (frames.end - frames.at < FRAME_HEADER || frames.at[0] != 1)
        return 0;
    uint32_t size = payload_size(frames.at);
    View payload = {frames.at + FRAME_HEADER, frames.end};
    if (size > LARGEST_PAYLOAD || size > (uint64_t)(frames.end - payload.at))
        return 0;
    payload.end = frame->next = payload.at + size;
    frame->envelope.at = payload.at;
    View identity;
    uint64_t source;
    if (comes(&payload, 0x08) && (!varint(&payload, &source) || source > INT32_MAX))
        return 0;
    if (comes(&payload, 0x1A) && (!slice(&payload, &identity) || identity.end - identity.at > 64))
        return 0;
    if (payload.at == payload.end)
        return 0;
    frame->kind = *payload.at++;
    frame->envelope.end = payload.at;
    return slice(&payload, &frame->member) && payload.at == payload.end;
}

/* Text */

static PyObject *name_update, *name_digest, *name_kind;

static char hex[256][2]; /* the two digits of each byte */

static void make_hex(void)
{
    static const char digits[] = "0123456789abcdef";
    for (int byte = 0; byte < 256; byte++) {
        hex[byte][0] = digits[byte >> 4];
        hex[byte][1] = digits[byte & 15];
    }
}

static char *put_hex(char *out, View view)
{
    for (; view.at < view.end; view.at++, out += 2)
        memcpy(out, hex[*view.at], 2);
    return out;
}

static char *decimal(char *out, uint64_t value, int width)
{
    for (int place = width - 1; place >= 0; place--, value /= 10)
        out[place] = (char)('0' + value % 10);
    return out + width;
}

#define LONGEST_TIME 40

/* As asjson.rfc3339. The days are those of H. Hinnant's civil_from_days. */
static char *put_time(char *out, uint64_t seconds, uint64_t nanos)
{
    int64_t days = (int64_t)(seconds / 86400) + 719468, left = (int64_t)(seconds % 86400);
    int64_t era = days / 146097, of_era = days % 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * of_year + 2) / 153;
    int64_t day = of_year - (153 * shifted + 2) / 5 + 1;
    int64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
    out = decimal(out, (uint64_t)(year_of_era + era * 400 + (month <= 2)), 4);
    *out++ = '-';
    out = decimal(out, (uint64_t)month, 2);
    *out++ = '-';
    out = decimal(out, (uint64_t)day, 2);
    *out++ = 'T';
    out = decimal(out, (uint64_t)left / 3600, 2);
    *out++ = ':';
    out = decimal(out, (uint64_t)left / 60 % 60, 2);
    *out++ = ':';
    out = decimal(out, (uint64_t)left % 60, 2);
    if (nanos) {
        *out++ = '.';
        if (nanos % 1000000 == 0)
            out = decimal(out, nanos / 1000000, 3);
        else if (nanos % 1000 == 0)
            out = decimal(out, nanos / 1000, 6);
        else
            out = decimal(out, nanos, 9);
    }
    *out++ = 'Z';
    return out;
}

/* Writing */

/* What is written becomes a bytes object without being copied once more. */
typedef struct {
    PyObject *bytes; /* has more room than `size` */
    size_t size;
} Buffer;

/* Say whether there is memory to begin with: about as much as will be written. */
static int begin(Buffer *buffer, Py_ssize_t room)
{
    buffer->size = 0;
    buffer->bytes = PyBytes_FromStringAndSize(NULL, room);
    return buffer->bytes != NULL;
}

/* Make room for `more` bytes, and return where they go. */
static char *claim(Buffer *buffer, size_t more)
{
    size_t size = buffer->size + more;
    if (size > (size_t)PyBytes_GET_SIZE(buffer->bytes) &&
        _PyBytes_Resize(&buffer->bytes, (Py_ssize_t)size * 2))
        return NULL;
    char *place = PyBytes_AS_STRING(buffer->bytes) + buffer->size;
    buffer->size = size;
    return place;
}

/* Return what was written; NULL with an error where there is no memory. */
static PyObject *finish(Buffer *buffer)
{
    _PyBytes_Resize(&buffer->bytes, (Py_ssize_t)buffer->size);
    return buffer->bytes;
}

typedef struct {
    const char *start;
    Py_ssize_t size;
} Text;

static char *put(char *out, Text text)
{
    memcpy(out, text.start, (size_t)text.size);
    return out + text.size;
}

static int text_of(PyObject *object, Text *text)
{
    if (PyBytes_Check(object)) {
        text->start = PyBytes_AS_STRING(object);
        text->size = PyBytes_GET_SIZE(object);
        return 1;
    }
    text->start = PyUnicode_AsUTF8AndSize(object, &text->size);
    return text->start != NULL;
}

static const Text NO_TEXT = {"", 0};
static const Text QUOTE = {"\"", 1};

static int append(Buffer *buffer, Text text)
{
    char *place = claim(buffer, (size_t)text.size);
    if (place)
        put(place, text);
    return place != NULL;
}

/* Any message of the schema, and JSON, as asjson.JsonWriter writes it, with bytes in hex
 *
 * table(fields) -> a table of the fields of a message type, in the order of their numbers. Each is
 * (tag, type, recurs, keeps, chosen, name, of): the tag as it stands on the wire, one of the types below,
 * whether it recurs, whether it is told when it is 0 or empty, whether it is one of a oneof's several, its
 * name as JSON with the colon, and for an enum the names by their numbers, as JSON, for a message its own
 * table.
 *
 * json(table, data) -> bytes, or None where `data` is for the long way. */

enum { INT32, UINT32, INT64, BOOLEAN, ENUM, OCTETS, STRING, TIME, MESSAGE };

typedef struct Table Table;

typedef struct {
    uint64_t tag;
    int type, recurs, keeps, chosen;
    Text name;
    PyObject *names;
    const Table *inner;
} Field;

struct Table {
    PyObject *spec; /* what the fields point into */
    Py_ssize_t count;
    Field fields[];
};

static const char TABLE[] = "bridge.core._native.table";

static void forget_table(PyObject *capsule)
{
    Table *table = PyCapsule_GetPointer(capsule, TABLE);
    Py_DECREF(table->spec);
    PyMem_Free(table);
}

static PyObject *table(PyObject *self, PyObject *spec)
{
    if (!PyTuple_Check(spec)) {
        PyErr_SetString(PyExc_TypeError, "not a tuple of fields");
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(spec);
    Table *made = PyMem_Calloc(1, sizeof(Table) + (size_t)count * sizeof(Field));
    if (!made)
        return PyErr_NoMemory();
    made->count = count;
    made->spec = Py_NewRef(spec);
    PyObject *capsule = PyCapsule_New(made, TABLE, forget_table);
    if (!capsule) {
        Py_DECREF(spec);
        PyMem_Free(made);
        return NULL;
    }
    for (Field *field = made->fields; field < made->fields + count; field++) {
        PyObject *of;
        unsigned long long tag;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(spec, field - made->fields), "KipppyO", &tag,
                              &field->type, &field->recurs, &field->keeps, &field->chosen,
                              &field->name.start, &of))
            goto failed;
        field->tag = tag;
        field->name.size = (Py_ssize_t)strlen(field->name.start);
        field->names = of;
        if (field->type < INT32 || field->type > MESSAGE) {
            PyErr_SetString(PyExc_ValueError, "no type of a field");
            goto failed;
        }
        if (field->type == MESSAGE && !(field->inner = PyCapsule_GetPointer(of, TABLE)))
            goto failed;
        if (field->type == ENUM && !PyDict_Check(of)) {
            PyErr_SetString(PyExc_TypeError, "an enum without names");
            goto failed;
        }
    }
    return capsule;
failed:
    Py_DECREF(capsule);
    return NULL;
}

/* Read the next tag, and return its field, which is `field` or one behind it. NULL: not of the one
 * form, in which fields ascend, and of those of a oneof there is one. */
static const Field *next_field(const Table *table, const Field *field, View *view, int *chosen)
{
    const Field *end = table->fields + table->count;
    uint64_t tag;
    if (!varint(view, &tag))
        return NULL;
    while (field < end && field->tag != tag)
        field++;
    return field == end || (field->chosen && (*chosen)++) ? NULL : field;
}

/* Say whether the next tag is that of `field` again, and step over it. */
static int recurs(const Field *field, View *view)
{
    View ahead = *view;
    uint64_t next;
    if (!field->recurs || !varint(&ahead, &next) || next != field->tag)
        return 0;
    *view = ahead;
    return 1;
}

static int scalar(const Field *field, View *view, uint64_t *value)
{
    static const uint64_t most[] = {INT32_MAX, UINT32_MAX, INT64_MAX, 1, INT32_MAX};
    return varint(view, value) && *value <= most[field->type] && (*value || field->keeps);
}

static int json_number(const Field *field, View *view, Buffer *out)
{
    uint64_t value;
    Text name;
    if (!scalar(field, view, &value))
        return 0;
    if (field->type == BOOLEAN)
        return append(out, value ? (Text){"true", 4} : (Text){"false", 5});
    if (field->type == ENUM) {
        PyObject *number = PyLong_FromUnsignedLongLong(value);
        PyObject *found = number ? PyDict_GetItemWithError(field->names, number) : NULL;
        Py_XDECREF(number);
        return found && text_of(found, &name) && append(out, name);
    }
    char *place = claim(out, 24);
    if (!place)
        return 0;
    const char *form = field->type == INT64 ? "\"%llu\"" : "%llu";
    out->size -= 24 - (size_t)snprintf(place, 24, form, (unsigned long long)value);
    return 1;
}

/* Text in which nothing is to be escaped, and nothing to be decoded. */
static int is_plain(View text)
{
    for (; text.at < text.end; text.at++)
        if (*text.at < 0x20 || *text.at >= 0x7F || *text.at == '"' || *text.at == '\\')
            return 0;
    return 1;
}

static int json_object(const Table *table, View view, Buffer *out);

/* Append one value of a field, whose tag was read. 0: an error, or not of the one form. */
static int json_value(const Field *field, View *view, Buffer *out)
{
    View part;
    Facts at;
    char *place, *end;
    switch (field->type) {
    case OCTETS:
        if (!slice(view, &part) || (part.at == part.end && !field->keeps) ||
            !(place = claim(out, 2 + 2 * (size_t)(part.end - part.at))))
            return 0;
        *place = '"';
        *put_hex(place + 1, part) = '"';
        return 1;
    case STRING:
        return slice(view, &part) && (part.at < part.end || field->keeps) && is_plain(part) &&
               append(out, QUOTE) &&
               append(out, (Text){(const char *)part.at, part.end - part.at}) &&
               append(out, QUOTE);
    case TIME:
        if (!instant(view, &at) || !(place = claim(out, LONGEST_TIME)))
            return 0;
        *place = '"';
        end = put_time(place + 1, at.seconds, at.nanos);
        *end++ = '"';
        out->size -= LONGEST_TIME - (size_t)(end - place);
        return 1;
    case MESSAGE:
        return slice(view, &part) && json_object(field->inner, part, out);
    default:
        return json_number(field, view, out);
    }
}

static int json_object(const Table *table, View view, Buffer *out)
{
    Text begin = {"{", 1};
    const Field *field = table->fields;
    for (int chosen = 0; view.at < view.end; field++, begin.start = ",") {
        field = next_field(table, field, &view, &chosen);
        if (!field || !append(out, begin) || !append(out, field->name))
            return 0;
        if (!field->recurs) {
            if (!json_value(field, &view, out))
                return 0;
            continue;
        }
        begin.start = "[";
        do {
            if (!append(out, begin) || !json_value(field, &view, out))
                return 0;
            begin.start = ",";
        } while (recurs(field, &view));
        if (!append(out, (Text){"]", 1}))
            return 0;
    }
    return (*begin.start == ',' || append(out, begin)) && append(out, (Text){"}", 1});
}

#define JSON_ROOM 512 /* names of fields, and times */

/* Return the member as JSON; NULL without an error where it is for the long way. */
static PyObject *json_text(const Table *table, View member)
{
    Buffer buffer;
    if (!begin(&buffer, JSON_ROOM + 2 * (member.end - member.at)))
        return NULL;
    if (json_object(table, member, &buffer))
        return finish(&buffer);
    Py_XDECREF(buffer.bytes);
    return NULL;
}

static PyObject *json(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "Oy*", &capsule, &buffer))
        return NULL;
    const Table *table = PyCapsule_GetPointer(capsule, TABLE);
    const uint8_t *start = buffer.buf;
    PyObject *text = table ? json_text(table, (View){start, start + buffer.len}) : NULL;
    PyBuffer_Release(&buffer);
    return text || PyErr_Occurred() ? text : Py_NewRef(Py_None);
}

/* form(table, data) -> (parts, last)
 *
 * Return how many fields `data` has, those of its messages included, if it is exactly what protobuf's
 * serialiser writes, and where the content of its last field begins; (0, 0) where it is for the long
 * way, or empty. */

static Py_ssize_t form_object(const Table *table, View view, const uint8_t **last);

/* How many fields one value has, itself included; 0: not of the one form. */
static Py_ssize_t form_value(const Field *field, View *view, const uint8_t **last)
{
    View part;
    Facts at;
    uint64_t value;
    const uint8_t *within;
    *last = view->at;
    switch (field->type) {
    case OCTETS:
    case STRING:
        if (!slice(view, &part))
            return 0;
        *last = part.at;
        return part.at < part.end || field->keeps;
    case TIME:
        return instant(view, &at);
    case MESSAGE:
        if (!slice(view, &part))
            return 0;
        *last = part.at;
        return 1 + form_object(field->inner, part, &within);
    default:
        return scalar(field, view, &value);
    }
}

/* How many fields there are; so few that the sum is below 0 where it is not of the one form. */
static Py_ssize_t form_object(const Table *table, View view, const uint8_t **last)
{
    Py_ssize_t parts = 0;
    const Field *field = table->fields;
    for (int chosen = 0; view.at < view.end; field++) {
        field = next_field(table, field, &view, &chosen);
        if (!field)
            return PY_SSIZE_T_MIN / 2;
        do {
            Py_ssize_t of_value = form_value(field, &view, last);
            if (of_value <= 0)
                return PY_SSIZE_T_MIN / 2;
            parts += of_value;
        } while (recurs(field, &view));
    }
    return parts;
}

static PyObject *form(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "Oy*", &capsule, &buffer))
        return NULL;
    const Table *table = PyCapsule_GetPointer(capsule, TABLE);
    const uint8_t *start = buffer.buf, *last = start;
    Py_ssize_t parts = table ? form_object(table, (View){start, start + buffer.len}, &last) : 0;
    Py_ssize_t place = parts > 0 ? last - start : 0;
    PyBuffer_Release(&buffer);
    return table ? Py_BuildValue("nn", parts > 0 ? parts : 0, place) : NULL;
}

/* hash_with(sha256, begin, update, end) -> None
 *
 * Hash with OpenSSL's SHA256_Init, SHA256_Update and SHA256_Final, which stand at these addresses; or,
 * where they are 0, or hash another way, by calls of `sha256`, hashlib's: the same, but for a commit these
 * take longer than the hashing. */

#define MOST_STATE 512 /* bytes; a SHA256_CTX has 112 */

static struct {
    PyObject *type;
    int (*begin)(void *);
    int (*update)(void *, const void *, size_t);
    int (*end)(uint8_t *, void *);
} sha256;

/* Put the SHA-256 of `salt` and `data` into `out`; 0: an error. */
static int hashed(Text salt, View data, uint8_t out[HASH])
{
    if (sha256.begin) {
        _Alignas(16) uint8_t state[MOST_STATE];
        int fits = sha256.begin(state) && sha256.update(state, salt.start, (size_t)salt.size) &&
                   sha256.update(state, data.at, (size_t)(data.end - data.at)) &&
                   sha256.end(out, state);
        if (!fits)
            PyErr_SetString(PyExc_RuntimeError, "SHA-256 fails");
        return fits;
    }
    if (!sha256.type) {
        PyErr_SetString(PyExc_RuntimeError, "hash_with was not called");
        return 0;
    }
    PyObject *copy = PyBytes_FromStringAndSize((const char *)data.at, data.end - data.at);
    PyObject *hash = copy ? PyObject_CallFunction(sha256.type, "y#", salt.start, salt.size) : NULL;
    PyObject *done = hash ? PyObject_CallMethodOneArg(hash, name_update, copy) : NULL;
    PyObject *digest = done ? PyObject_CallMethodNoArgs(hash, name_digest) : NULL;
    int fits = digest && PyBytes_CheckExact(digest) && PyBytes_GET_SIZE(digest) == HASH;
    if (fits)
        memcpy(out, PyBytes_AS_STRING(digest), HASH);
    else if (digest)
        PyErr_SetString(PyExc_TypeError, "not a SHA-256");
    Py_XDECREF(digest);
    Py_XDECREF(done);
    Py_XDECREF(hash);
    Py_XDECREF(copy);
    return fits;
}

static PyObject *hash_with(PyObject *self, PyObject *args)
{
    static const uint8_t begins[] = {0xBA, 0x78, 0x16, 0xBF, 0x8F, 0x01, 0xCF, 0xEA}; /* FIPS 180: "abc" */
    PyObject *type;
    unsigned long long begin, update, end;
    if (!PyArg_ParseTuple(args, "OKKK", &type, &begin, &update, &end))
        return NULL;
    Py_XSETREF(sha256.type, Py_NewRef(type));
    sha256.begin = begin && update && end ? (int (*)(void *))(uintptr_t)begin : NULL;
    sha256.update = (int (*)(void *, const void *, size_t))(uintptr_t)update;
    sha256.end = (int (*)(uint8_t *, void *))(uintptr_t)end;
    uint8_t digest[HASH];
    View abc = {(const uint8_t *)"bc", (const uint8_t *)"bc" + 2};
    if (sha256.begin && (!hashed((Text){"a", 1}, abc, digest) || memcmp(digest, begins, sizeof begins)))
        sha256.begin = NULL;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* LazyMessage: a message whose attributes are written when they are asked for
 *
 * It holds the bytes that the event came in, and where its facts stand in them. `records` and `block`
 * write it from there; whoever else asks gets what `render` would have told. */

#define ID_BYTES 16
#define MOST_VALUES 32

enum { OF_LAYOUT, OF_SALT, OF_ORIGIN, OF_TABLE, TOLD }; /* places in what is told of an envelope */

typedef struct {
    PyObject_HEAD
    PyObject *frames, *told, *received, *states;
    PyObject *json; /* NULL: the data is the member as it came */
    View member;
    const uint8_t *about; /* the hash that is subject and key; of a process-list event there is none */
    uint64_t seq, seconds, nanos, state, height;
    uint8_t kind, id[ID_BYTES];
} Lazy;

static PyTypeObject lazy_type;

/* The values of a message, and room for those that are written. */
typedef struct {
    Text values[MOST_VALUES];
    Py_ssize_t count;
    char room[2 * ID_BYTES + LONGEST_TIME + 20 + 2 * HASH];
} Values;

static Text lazy_data(const Lazy *lazy)
{
    if (lazy->json)
        return (Text){PyBytes_AS_STRING(lazy->json), PyBytes_GET_SIZE(lazy->json)};
    return (Text){(const char *)lazy->member.at, lazy->member.end - lazy->member.at};
}

static int has_key(const Lazy *lazy)
{
    return lazy->kind != PROCESS_LIST;
}

/* In the order of the layouts that `render` makes. */
static int lazy_values(const Lazy *lazy, Values *values)
{
    PyObject *origin = PyTuple_GET_ITEM(lazy->told, OF_ORIGIN);
    Text *next = values->values, received;
    int is_reveal = lazy->kind == ENTRY_REVEAL;
    if (PyTuple_GET_SIZE(origin) > MOST_VALUES - 8) {
        PyErr_SetString(PyExc_ValueError, "too many values");
        return 0;
    }
    if (!text_of(lazy->received, &received))
        return 0;
    char *start = values->room, *end = put_hex(start, (View){lazy->id, lazy->id + ID_BYTES});
    *next++ = (Text){start, end - start};
    if (lazy->seconds) {
        uint64_t nanos = lazy->nanos;
        if (is_reveal && nanos < 1000000)
            nanos *= 1000; /* the node's quirk: core/facts.py */
        start = end;
        end = put_time(start, lazy->seconds, nanos);
        *next++ = (Text){start, end - start};
    } else {
        *next++ = received;
    }
    start = end;
    end = decimal(start, lazy->seq, 20);
    *next++ = (Text){start, end - start};
    *next++ = received;
    start = end;
    if (has_key(lazy))
        end = put_hex(start, (View){lazy->about, lazy->about + HASH});
    else
        end = start + sprintf(start, "%llu", (unsigned long long)lazy->height);
    Text subject = {start, end - start};
    *next++ = subject;
    *next++ = subject; /* the key, or the height */
    if (has_key(lazy) && !text_of(PyTuple_GET_ITEM(lazy->states, (Py_ssize_t)lazy->state), next++))
        return 0;
    if (is_reveal)
        *next++ = subject;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(origin); i++)
        if (!text_of(PyTuple_GET_ITEM(origin, i), next++))
            return 0;
    values->count = next - values->values;
    return 1;
}

static PyObject *unicode(Text text)
{
    return PyUnicode_FromStringAndSize(text.start, text.size);
}

static PyObject *get_value(PyObject *self, Py_ssize_t place)
{
    Values values;
    return lazy_values((Lazy *)self, &values) ? unicode(values.values[place]) : NULL;
}

static PyObject *get_seq(PyObject *self, void *closure)
{
    return PyLong_FromUnsignedLongLong(((Lazy *)self)->seq);
}

static PyObject *get_id(PyObject *self, void *closure)
{
    return get_value(self, 0);
}

static PyObject *get_key(PyObject *self, void *closure)
{
    return has_key((Lazy *)self) ? get_value(self, 5) : Py_NewRef(Py_None);
}

static PyObject *get_token(PyObject *self, void *closure)
{
    return ((Lazy *)self)->kind == ENTRY_REVEAL ? get_value(self, 5) : unicode(NO_TEXT);
}

static PyObject *get_layout(PyObject *self, void *closure)
{
    return Py_NewRef(PyTuple_GET_ITEM(((Lazy *)self)->told, OF_LAYOUT));
}

static PyObject *get_values(PyObject *self, void *closure)
{
    Values values;
    if (!lazy_values((Lazy *)self, &values))
        return NULL;
    PyObject *found = PyTuple_New(values.count);
    for (Py_ssize_t i = 0; found && i < values.count; i++) {
        PyObject *value = unicode(values.values[i]);
        if (!value)
            Py_CLEAR(found);
        else
            PyTuple_SET_ITEM(found, i, value);
    }
    return found;
}

static PyObject *get_data(PyObject *self, void *closure)
{
    Text data = lazy_data((Lazy *)self);
    return PyBytes_FromStringAndSize(data.start, data.size);
}

static PyObject *get_data_size(PyObject *self, void *closure)
{
    return PyLong_FromSsize_t(lazy_data((Lazy *)self).size);
}

static PyGetSetDef lazy_attributes[] = {
    {"seq", get_seq, NULL, NULL, NULL},
    {"id", get_id, NULL, NULL, NULL},
    {"key", get_key, NULL, NULL, NULL},
    {"token", get_token, NULL, NULL, NULL},
    {"layout", get_layout, NULL, NULL, NULL},
    {"values", get_values, NULL, NULL, NULL},
    {"data", get_data, NULL, NULL, NULL},
    {"data_size", get_data_size, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static void forget_lazy(PyObject *self)
{
    Lazy *lazy = (Lazy *)self;
    Py_XDECREF(lazy->frames);
    Py_XDECREF(lazy->told);
    Py_XDECREF(lazy->received);
    Py_XDECREF(lazy->states);
    Py_XDECREF(lazy->json);
    Py_TYPE(self)->tp_free(self);
}

static PyTypeObject lazy_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "bridge.core._native.LazyMessage",
    .tp_basicsize = sizeof(Lazy),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = forget_lazy,
    .tp_getset = lazy_attributes,
};

/* events(frames, at, seq, received, known, states, message, out) -> (at, seq)
 *
 * Append to `out` the messages of commits, reveals, state changes and minutes, as `render` makes them, from the
 * record at `at` on, which has the number `seq`; and return the place and the number of the first
 * record that is for the long way. `known` says, for what stands in front of a member (its tag
 * included), the layout, what is hashed in front of the data, the values of the envelope's own attributes, and
 * the table with which the data is written as JSON, or None; an envelope that it lacks is for the long
 * way. `message` is their type, a LazyMessage. */

/* Return the message of an event; NULL without an error where it is for the long way. */
static PyObject *message_of(PyTypeObject *type, PyObject *told, const Frame *frame,
                            const Facts *facts, uint64_t seq)
{
    PyObject *capsule = PyTuple_GET_ITEM(told, OF_TABLE), *json = NULL;
    uint8_t digest[HASH];
    Text salt;
    if (!text_of(PyTuple_GET_ITEM(told, OF_SALT), &salt) || !hashed(salt, frame->member, digest))
        return NULL;
    if (capsule != Py_None &&
        !(json = json_text(PyCapsule_GetPointer(capsule, TABLE), frame->member)))
        return NULL;
    Lazy *lazy = (Lazy *)type->tp_alloc(type, 0);
    if (!lazy) {
        Py_XDECREF(json);
        return NULL;
    }
    /* A subclass is tracked, and nothing that it holds leads back to it. */
    if (PyObject_IS_GC((PyObject *)lazy))
        PyObject_GC_UnTrack(lazy);
    lazy->told = Py_NewRef(told);
    lazy->json = json;
    lazy->member = frame->member;
    if (frame->kind != PROCESS_LIST)
        lazy->about = frame->kind == ENTRY_REVEAL ? facts->chain.at : facts->hash.at;
    lazy->height = facts->height;
    lazy->seq = seq;
    lazy->seconds = facts->seconds;
    lazy->nanos = facts->nanos;
    lazy->state = facts->state;
    lazy->kind = frame->kind;
    memcpy(lazy->id, digest, ID_BYTES);
    return (PyObject *)lazy;
}

/* A new reference to what is told of an envelope; NULL without an error where nothing is. */
static PyObject *told_of(PyObject *known, View envelope)
{
    PyObject *key = PyBytes_FromStringAndSize((const char *)envelope.at, envelope.end - envelope.at);
    PyObject *told = key ? PyDict_GetItemWithError(known, key) : NULL;
    Py_XDECREF(key);
    if (told && (!PyTuple_Check(told) || PyTuple_GET_SIZE(told) != TOLD ||
                 !PyTuple_Check(PyTuple_GET_ITEM(told, OF_ORIGIN)) ||
                 (PyTuple_GET_ITEM(told, OF_TABLE) != Py_None &&
                  !PyCapsule_IsValid(PyTuple_GET_ITEM(told, OF_TABLE), TABLE)))) {
        PyErr_SetString(PyExc_TypeError, "not what is told of an envelope");
        return NULL;
    }
    return Py_XNewRef(told);
}

static PyObject *events(PyObject *self, PyObject *args)
{
    Py_ssize_t at;
    unsigned long long seq;
    PyObject *bytes, *known, *received, *states, *out, *told = NULL;
    PyTypeObject *type;
    if (!PyArg_ParseTuple(args, "SnKUO!O!O!O!", &bytes, &at, &seq, &received, &PyDict_Type, &known,
                          &PyTuple_Type, &states, &PyType_Type, &type, &PyList_Type, &out))
        return NULL;
    if (!PyType_IsSubtype(type, &lazy_type) || at < 0 || at > PyBytes_GET_SIZE(bytes)) {
        PyErr_SetString(PyExc_ValueError, "no LazyMessage, or `at` is outside the frames");
        return NULL;
    }
    const uint8_t *start = (const uint8_t *)PyBytes_AS_STRING(bytes);
    View frames = {start + at, start + PyBytes_GET_SIZE(bytes)}, last = {NULL, NULL};
    while (frames.at < frames.end) {
        Frame frame;
        Facts facts;
        if (!frame_of(frames, &frame) || !member(frame.kind, frame.member, &facts) ||
            facts.state >= (uint64_t)PyTuple_GET_SIZE(states))
            break;
        Py_ssize_t size = frame.envelope.end - frame.envelope.at;
        if (size != last.end - last.at || memcmp(last.at, frame.envelope.at, (size_t)size)) {
            Py_XSETREF(told, told_of(known, frame.envelope));
            if (!told)
                break;
            last = frame.envelope;
        }
        PyObject *message = message_of(type, told, &frame, &facts, seq);
        if (!message)
            break;
        Lazy *lazy = (Lazy *)message;
        lazy->frames = Py_NewRef(bytes);
        lazy->received = Py_NewRef(received);
        lazy->states = Py_NewRef(states);
        int failed = PyList_Append(out, message);
        Py_DECREF(message);
        if (failed)
            break;
        seq++;
        frames.at = frame.next;
    }
    Py_XDECREF(told);
    return PyErr_Occurred() ? NULL : Py_BuildValue("nK", frames.at - start, seq);
}

/* identities(frames, at, out, heights) -> at
 *
 * Append to `out` the identities of commits and reveals, and to `heights` those that minutes tell, as
 * `peek` tells them, one that is told again and again once; and return the place of the first record
 * that is for the long way. */

static PyObject *identity_of(const Frame *frame)
{
    View view = frame->member;
    uint64_t state;
    if (!number(&view, 0x08, UINT64_MAX, &state))
        return NULL;
    uint8_t digest[HASH];
    if (!hashed(NO_TEXT, view, digest))
        return NULL;
    uint64_t found = 0;
    for (int i = 0; i < 8; i++)
        found = found << 8 | digest[i];
    return PyLong_FromUnsignedLongLong(found ^ frame->kind);
}

/* Note what an event tells. */
static int note(const Frame *frame, const Facts *facts, PyObject *out, PyObject *heights)
{
    static const uint64_t NONE = UINT64_MAX;
    PyObject *found;
    if (frame->kind == STATE_CHANGE)
        return 1;
    if (frame->kind == PROCESS_LIST) {
        Py_ssize_t count = PyList_GET_SIZE(heights);
        PyObject *last = count ? PyList_GET_ITEM(heights, count - 1) : NULL;
        if ((last ? PyLong_AsUnsignedLongLong(last) : NONE) == facts->height)
            return 1;
        found = PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(facts->height);
        out = heights;
    } else if (frame->kind == ENTRY_REVEAL) {
        uint64_t hash = 0;
        for (int i = 0; i < 8; i++)
            hash = hash << 8 | facts->hash.at[i];
        found = PyLong_FromUnsignedLongLong(hash);
    } else {
        found = identity_of(frame);
    }
    int noted = found && !PyList_Append(out, found);
    Py_XDECREF(found);
    return noted;
}

static PyObject *identities(PyObject *self, PyObject *args)
{
    Py_buffer buffer;
    Py_ssize_t at;
    PyObject *out, *heights;
    if (!PyArg_ParseTuple(args, "y*nO!O!", &buffer, &at, &PyList_Type, &out, &PyList_Type, &heights))
        return NULL;
    const uint8_t *start = buffer.buf;
    int failed = at < 0 || at > buffer.len;
    if (failed)
        PyErr_SetString(PyExc_ValueError, "`at` is outside the frames");
    View frames = {start + (failed ? 0 : at), start + buffer.len};
    while (!failed && frames.at < frames.end) {
        Frame frame;
        Facts facts;
        if (!frame_of(frames, &frame) || !member(frame.kind, frame.member, &facts))
            break;
        failed = !note(&frame, &facts, out, heights);
        frames.at = frame.next;
    }
    at = frames.at - start;
    PyBuffer_Release(&buffer);
    return failed ? NULL : PyLong_FromSsize_t(at);
}

/* remember(known, ids) -> bytes
 *
 * Add `ids` to the set `known`, and return those that it did not have, 8 bytes each, little-endian. */

static PyObject *remember(PyObject *self, PyObject *args)
{
    PyObject *known, *ids;
    if (!PyArg_ParseTuple(args, "O!O", &PySet_Type, &known, &ids) || !(ids = PySequence_Tuple(ids)))
        return NULL;
    Buffer new;
    int failed = !begin(&new, PyTuple_GET_SIZE(ids) * 8);
    for (Py_ssize_t i = 0; !failed && i < PyTuple_GET_SIZE(ids); i++) {
        PyObject *each = PyTuple_GET_ITEM(ids, i);
        unsigned long long id = PyLong_AsUnsignedLongLong(each);
        Py_ssize_t before = PySet_GET_SIZE(known);
        failed = PyErr_Occurred() || PySet_Add(known, each);
        if (failed || PySet_GET_SIZE(known) == before)
            continue;
        char *place = claim(&new, 8);
        failed = !place;
        for (int byte = 0; !failed && byte < 8; byte++)
            place[byte] = (char)(id >> 8 * byte);
    }
    Py_DECREF(ids);
    if (!failed)
        return finish(&new);
    Py_XDECREF(new.bytes);
    return NULL;
}

/* merkle_root(leaves) -> bytes, or None where they are not hashes, or none
 *
 * Return the root over `leaves`, as `hashing.merkle_root` does. */

static PyObject *merkle_root(PyObject *self, PyObject *arg)
{
    if (!PyList_Check(arg) && !PyTuple_Check(arg))
        Py_RETURN_NONE;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(arg);
    /* One more, for an odd last one. */
    uint8_t *level = PyMem_Malloc(((size_t)count + 1) * HASH);
    int fits = level && count > 0;
    if (!level)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; fits && i < count; i++) {
        PyObject *leaf = PySequence_Fast_GET_ITEM(arg, i);
        fits = PyBytes_CheckExact(leaf) && PyBytes_GET_SIZE(leaf) == HASH;
        if (fits)
            memcpy(level + i * HASH, PyBytes_AS_STRING(leaf), HASH);
    }
    while (fits && count > 1) {
        if (count % 2) {
            memcpy(level + count * HASH, level + (count - 1) * HASH, HASH);
            count++;
        }
        for (Py_ssize_t i = 0; fits && i < count; i += 2) {
            View pair = {level + i * HASH, level + (i + 2) * HASH};
            uint8_t digest[HASH];
            fits = hashed(NO_TEXT, pair, digest);
            if (fits)
                memcpy(level + i / 2 * HASH, digest, HASH);
        }
        count /= 2;
    }
    PyObject *root = NULL;
    if (fits)
        root = PyBytes_FromStringAndSize((const char *)level, HASH);
    else if (!PyErr_Occurred())
        root = Py_NewRef(Py_None);
    PyMem_Free(level);
    return root;
}

/* credit_body(block) -> bytes, or None where `block` is for the long way
 *
 * Return the binary form of what stands in `block`, a serialised EntryCreditBlock, as
 * `binary.credits.CreditBlock` writes it. */

enum { OF_CHAIN = 0x0A, OF_ENTRY = 0x12, INCREASE = 0x1A, MINUTE = 0x22, SERVER = 0x2A };

#define SIGNATURE 64
#define LARGEST_OBJECT 201 /* a chain commit, with its code */

/* Find the next object of a block, and its tag in the oneof. 0: none, or not of the one form. */
static int next_object(View *block, uint8_t *tag, View *object)
{
    View entry;
    if (!comes(block, 0x12) || !slice(block, &entry) || entry.at == entry.end)
        return 0;
    *tag = *entry.at++;
    return slice(&entry, object) && entry.at == entry.end;
}

/* Step over the header of a serialised EntryCreditBlock. */
static int credit_header(View *block)
{
    View header;
    return !comes(block, 0x0A) || slice(block, &header);
}

static char *put_view(char *out, View view)
{
    return put(out, (Text){(const char *)view.at, view.end - view.at});
}

/* The highest byte first. */
static char *big_endian(char *out, uint64_t value, int size)
{
    for (int at = size - 1; at >= 0; at--)
        *out++ = (char)(value >> 8 * at);
    return out;
}

/* varInt_F: 7 bits a byte, the highest first, all but the last marked. */
static char *varint_f(char *out, uint64_t value)
{
    int more = 0;
    while (more < 9 && value >> 7 * (more + 1))
        more++;
    for (; more; more--)
        *out++ = (char)(value >> 7 * more | 0x80);
    *out++ = (char)(value & 0x7F);
    return out;
}

static int sizes(View view, Py_ssize_t size)
{
    return view.end - view.at == size;
}

static int credit_commit(uint8_t tag, View object, Buffer *out)
{
    int of_chain = tag == OF_CHAIN;
    Facts facts;
    if (!member(of_chain ? CHAIN_COMMIT : ENTRY_COMMIT, object, &facts) ||
        !sizes(facts.payer, HASH) || !sizes(facts.signature, SIGNATURE) || facts.nanos % 1000000 ||
        facts.credits > UINT8_MAX || facts.version > UINT8_MAX ||
        (of_chain && (!sizes(facts.entry, HASH) || !sizes(facts.weld, HASH))))
        return 0;
    char *start = claim(out, LARGEST_OBJECT), *end = start;
    if (!start)
        return 0;
    *end++ = of_chain ? 2 : 3;
    end = big_endian(end, facts.version, 1);
    end = big_endian(end, facts.seconds * 1000 + facts.nanos / 1000000, 6);
    end = put_view(end, facts.hash);
    if (of_chain)
        end = put_view(put_view(end, facts.weld), facts.entry);
    end = big_endian(end, facts.credits, 1);
    end = put_view(put_view(end, facts.payer), facts.signature);
    out->size -= LARGEST_OBJECT - (size_t)(end - start);
    return 1;
}

static int credit_object(uint8_t tag, View object, Buffer *out)
{
    View payer, transaction;
    uint64_t index, amount;
    char *start, *end;
    switch (tag) {
    case OF_CHAIN:
    case OF_ENTRY:
        return credit_commit(tag, object, out);
    case INCREASE:
        if (!octets(&object, 0x0A, &payer) || !octets(&object, 0x12, &transaction) ||
            !number(&object, 0x18, INT64_MAX, &index) ||
            !number(&object, 0x20, INT64_MAX, &amount) || !sizes(payer, HASH) ||
            !sizes(transaction, HASH))
            return 0;
        break;
    case MINUTE:
    case SERVER:
        if (!number(&object, 0x08, UINT8_MAX, &amount))
            return 0;
        break;
    default:
        return 0;
    }
    start = end = object.at == object.end ? claim(out, LARGEST_OBJECT) : NULL;
    if (!start)
        return 0;
    if (tag == INCREASE) {
        *end++ = 4;
        end = varint_f(varint_f(put_view(put_view(end, payer), transaction), index), amount);
    } else {
        *end++ = tag == MINUTE;
        *end++ = (char)amount;
    }
    out->size -= LARGEST_OBJECT - (size_t)(end - start);
    return 1;
}

static PyObject *credit_body(PyObject *self, PyObject *arg)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(arg, &buffer, PyBUF_SIMPLE))
        return NULL;
    const uint8_t *start = buffer.buf;
    View block = {start, start + buffer.len}, object;
    Buffer out;
    uint8_t tag;
    int fits = begin(&out, buffer.len) && credit_header(&block);
    while (fits && block.at < block.end)
        fits = next_object(&block, &tag, &object) && credit_object(tag, object, &out);
    PyBuffer_Release(&buffer);
    if (fits)
        return finish(&out);
    Py_XDECREF(out.bytes);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* credit_identities(block) -> list of the identities of its commits, in order, or None
 *
 * As `identities`, of a serialised EntryCreditBlock. */

static PyObject *credit_identities(PyObject *self, PyObject *arg)
{
    Py_buffer buffer;
    PyObject *out;
    if (PyObject_GetBuffer(arg, &buffer, PyBUF_SIMPLE))
        return NULL;
    const uint8_t *start = buffer.buf;
    View block = {start, start + buffer.len};
    uint8_t tag;
    int fits = (out = PyList_New(0)) && credit_header(&block);
    while (fits && block.at < block.end) {
        Frame frame = {0};
        Facts facts;
        fits = next_object(&block, &tag, &frame.member);
        if (!fits || (tag != OF_CHAIN && tag != OF_ENTRY))
            continue;
        frame.kind = tag == OF_CHAIN ? CHAIN_COMMIT : ENTRY_COMMIT;
        PyObject *found = NULL;
        fits = member(frame.kind, frame.member, &facts) && (found = identity_of(&frame)) &&
               !PyList_Append(out, found);
        Py_XDECREF(found);
    }
    PyBuffer_Release(&buffer);
    if (!fits) {
        Py_CLEAR(out);
        if (!PyErr_Occurred())
            return Py_NewRef(Py_None);
    }
    return out;
}

/* A message, taken apart. All is borrowed from it and from `prepared`. */
typedef struct {
    PyObject *prepared; /* (constants, names, ...), as the caller made it for the layout */
    PyObject *names;
    Text id, key, token, data; /* no key: one without a start */
    Values of;
    uint64_t seq;
    char digits[24];
} Parts;

static int parts_of_tuple(PyObject *message, Parts *parts)
{
    PyObject *key = PyTuple_GET_ITEM(message, 2), *values = PyTuple_GET_ITEM(message, 5);
    if (!PyTuple_Check(values)) {
        PyErr_SetString(PyExc_TypeError, "values that are no tuple");
        return 0;
    }
    parts->seq = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(message, 0));
    parts->key = (Text){NULL, 0};
    parts->of.count = PyTuple_GET_SIZE(values);
    if (parts->of.count > MOST_VALUES) {
        PyErr_SetString(PyExc_ValueError, "too many values");
        return 0;
    }
    for (Py_ssize_t i = 0; i < parts->of.count; i++)
        if (!text_of(PyTuple_GET_ITEM(values, i), &parts->of.values[i]))
            return 0;
    return !PyErr_Occurred() && (key == Py_None || text_of(key, &parts->key)) &&
           text_of(PyTuple_GET_ITEM(message, 1), &parts->id) &&
           text_of(PyTuple_GET_ITEM(message, 3), &parts->token) &&
           text_of(PyTuple_GET_ITEM(message, 6), &parts->data);
}

static int parts_of_lazy(const Lazy *lazy, Parts *parts)
{
    if (!lazy_values(lazy, &parts->of))
        return 0;
    parts->seq = lazy->seq;
    parts->id = parts->of.values[0];
    parts->key = has_key(lazy) ? parts->of.values[5] : (Text){NULL, 0};
    parts->token = lazy->kind == ENTRY_REVEAL ? parts->key : NO_TEXT;
    parts->data = lazy_data(lazy);
    return 1;
}

static int parts_of(PyObject *message, PyObject *prepared, PyObject *prepare, Parts *parts)
{
    PyObject *layout;
    if (PyObject_TypeCheck(message, &lazy_type)) {
        layout = PyTuple_GET_ITEM(((Lazy *)message)->told, OF_LAYOUT);
        if (!parts_of_lazy((Lazy *)message, parts))
            return 0;
    } else if (PyTuple_Check(message) && PyTuple_GET_SIZE(message) == 7) {
        layout = PyTuple_GET_ITEM(message, 4);
        if (!parts_of_tuple(message, parts))
            return 0;
    } else {
        PyErr_SetString(PyExc_TypeError, "not a message");
        return 0;
    }
    PyObject *made = PyDict_GetItemWithError(prepared, layout);
    if (!made) {
        if (PyErr_Occurred() || !(made = PyObject_CallOneArg(prepare, layout)))
            return 0;
        Py_DECREF(made); /* `prepare` put it into `prepared` */
        if (!(made = PyDict_GetItemWithError(prepared, layout))) {
            PyErr_SetString(PyExc_KeyError, "the layout was not prepared");
            return 0;
        }
    }
    if (!PyTuple_Check(made) || PyTuple_GET_SIZE(made) != 4 ||
        !PyTuple_Check(PyTuple_GET_ITEM(made, 1))) {
        PyErr_SetString(PyExc_TypeError, "not what is prepared of a layout");
        return 0;
    }
    parts->prepared = made;
    parts->names = PyTuple_GET_ITEM(made, 1);
    if (parts->of.count != PyTuple_GET_SIZE(parts->names)) {
        PyErr_SetString(PyExc_ValueError, "values do not fit the layout");
        return 0;
    }
    snprintf(parts->digits, sizeof parts->digits, "%llu", (unsigned long long)parts->seq);
    return 1;
}

/* by_kind(messages) -> (messages by kind, largest)
 *
 * Return the messages of each kind, in their order, and how many bytes the largest data has. */

static int layout_of(PyObject *message, PyObject **layout, Py_ssize_t *size)
{
    if (PyObject_TypeCheck(message, &lazy_type)) {
        *layout = PyTuple_GET_ITEM(((Lazy *)message)->told, OF_LAYOUT);
        *size = lazy_data((Lazy *)message).size;
        return 1;
    }
    if (PyTuple_Check(message) && PyTuple_GET_SIZE(message) == 7 &&
        PyBytes_Check(PyTuple_GET_ITEM(message, 6))) {
        *layout = PyTuple_GET_ITEM(message, 4);
        *size = PyBytes_GET_SIZE(PyTuple_GET_ITEM(message, 6));
        return 1;
    }
    PyErr_SetString(PyExc_TypeError, "not a message");
    return 0;
}

/* Return the list of a layout's kind, borrowed; layouts of one kind share it. */
static PyObject *list_of(PyObject *layout, PyObject *of_layouts, PyObject *of_kinds)
{
    PyObject *list = PyDict_GetItemWithError(of_layouts, layout);
    if (list || PyErr_Occurred())
        return list;
    PyObject *kind = PyObject_GetAttr(layout, name_kind), *made = PyList_New(0);
    list = kind && made ? PyDict_SetDefault(of_kinds, kind, made) : NULL;
    if (list && PyDict_SetItem(of_layouts, layout, list))
        list = NULL;
    Py_XDECREF(kind);
    Py_XDECREF(made);
    return list;
}

static PyObject *by_kind(PyObject *self, PyObject *arg)
{
    PyObject *messages = PySequence_Tuple(arg), *of_layouts = PyDict_New(), *of_kinds = PyDict_New();
    PyObject *last = NULL, *list = NULL;
    Py_ssize_t largest = 0;
    int fits = messages && of_layouts && of_kinds;
    for (Py_ssize_t i = 0; fits && i < PyTuple_GET_SIZE(messages); i++) {
        PyObject *message = PyTuple_GET_ITEM(messages, i), *layout;
        Py_ssize_t size;
        if ((fits = layout_of(message, &layout, &size))) {
            if (layout != last)
                list = list_of(layout, of_layouts, of_kinds);
            last = layout;
            largest = size > largest ? size : largest;
            fits = list && !PyList_Append(list, message);
        }
    }
    Py_XDECREF(messages);
    Py_XDECREF(of_layouts);
    if (!fits)
        Py_CLEAR(of_kinds);
    return of_kinds ? Py_BuildValue("Nn", of_kinds, largest) : NULL;
}

#define ATTRIBUTES 1024 /* more than those of nearly all messages take */

/* How much room the messages from `at` on will take, but no more than `most`. */
static Py_ssize_t room_for(PyObject *messages, Py_ssize_t at, Py_ssize_t most)
{
    Py_ssize_t room = 0;
    for (; at < PyTuple_GET_SIZE(messages) && room < most; at++) {
        PyObject *message = PyTuple_GET_ITEM(messages, at), *data;
        if (PyObject_TypeCheck(message, &lazy_type))
            room += ATTRIBUTES + lazy_data((Lazy *)message).size;
        else if (PyTuple_Check(message) && PyTuple_GET_SIZE(message) == 7 &&
                 PyBytes_Check(data = PyTuple_GET_ITEM(message, 6)))
            room += ATTRIBUTES + PyBytes_GET_SIZE(data);
    }
    return room < most ? room : most;
}

/* records(messages, at, prepared, prepare, most) -> (bytes, at)
 *
 * Return the records of `messages` from `at` on, at least one and no more than `most` bytes, as
 * `KafkaWire` writes them, and the next place. */

static size_t zigzag_size(Py_ssize_t value)
{
    size_t size = 1;
    for (uint64_t left = (uint64_t)value << 1; left >= 0x80; left >>= 7)
        size++;
    return size;
}

static char *zigzag(char *out, Py_ssize_t value)
{
    uint64_t left = (uint64_t)value << 1;
    for (; left >= 0x80; left >>= 7)
        *out++ = (char)(left | 0x80);
    *out++ = (char)left;
    return out;
}

static size_t sized(Py_ssize_t size)
{
    return zigzag_size(size) + (size_t)size;
}

static char *put_sized(char *out, Text text)
{
    return put(zigzag(out, text.size), text);
}

static PyObject *records(PyObject *self, PyObject *args)
{
    PyObject *messages, *prepared, *prepare;
    Py_ssize_t at, most;
    if (!PyArg_ParseTuple(args, "O!nO!On", &PyList_Type, &messages, &at, &PyDict_Type, &prepared,
                          &prepare, &most))
        return NULL;
    most = most < 0 ? 0 : most;
    /* `prepare` may do what it likes with the list. */
    if (!(messages = PyList_AsTuple(messages)))
        return NULL;
    Py_ssize_t first = at, end = PyTuple_GET_SIZE(messages);
    Buffer buffer;
    int failed = !begin(&buffer, room_for(messages, at < 0 ? end : at, most)) || at < 0;
    for (; !failed && at < end; at++) {
        Parts parts;
        Text constants, seq_name;
        Py_ssize_t headers = -1;
        if (!parts_of(PyTuple_GET_ITEM(messages, at), prepared, prepare, &parts) ||
            !text_of(PyTuple_GET_ITEM(parts.prepared, 0), &constants) ||
            !text_of(PyTuple_GET_ITEM(parts.prepared, 2), &seq_name) ||
            (headers = PyLong_AsSsize_t(PyTuple_GET_ITEM(parts.prepared, 3))) < 0) {
            failed = 1;
            break;
        }
        Text seq = {parts.digits, (Py_ssize_t)strlen(parts.digits)};
        Text names[MOST_VALUES];
        size_t size = 2 + zigzag_size(at - first) + zigzag_size(headers) + (size_t)constants.size +
                      (size_t)seq_name.size + sized(seq.size) + sized(parts.data.size) +
                      (parts.key.start ? sized(parts.key.size) : 1);
        for (Py_ssize_t i = 0; i < parts.of.count; i++) {
            if (!text_of(PyTuple_GET_ITEM(parts.names, i), &names[i])) {
                failed = 1;
                break;
            }
            size += (size_t)names[i].size + sized(parts.of.values[i].size);
        }
        if (failed)
            break;
        size_t whole = zigzag_size((Py_ssize_t)size) + size;
        if (at > first && buffer.size + whole > (size_t)most)
            break;
        char *out = claim(&buffer, whole);
        if (!out) {
            failed = 1;
            break;
        }
        out = zigzag(out, (Py_ssize_t)size);
        *out++ = 0; /* attributes */
        *out++ = 0; /* time, behind the batch's */
        out = zigzag(out, at - first);
        if (parts.key.start)
            out = put_sized(out, parts.key);
        else
            *out++ = 1; /* -1 */
        out = put_sized(out, parts.data);
        out = zigzag(out, headers);
        out = put(out, constants);
        out = put_sized(put(out, seq_name), seq);
        for (Py_ssize_t i = 0; i < parts.of.count; i++)
            out = put_sized(put(out, names[i]), parts.of.values[i]);
    }
    Py_DECREF(messages);
    PyObject *found = failed ? NULL : finish(&buffer);
    if (found)
        return Py_BuildValue("Nn", found, at);
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "`at` is outside the messages, or no count of headers");
    Py_XDECREF(buffer.bytes);
    return NULL;
}

/* block(messages, prepared, prepare, reply, batch, behind) -> bytes
 *
 * Return the commands that publish `messages`, as `NatsWire` writes them. */

static const Text LINE = {"\r\n", 2};
static const Text VERSION = {"NATS/1.0\r\n", 10};
static const Text ID = {"Nats-Msg-Id: ", 13};
static const Text BEHIND = {"Nats-Expected-Last-Msg-Id: ", 27};
#define LONGEST_ID 256
static const Text WINDOW = {"bridge-window: 1\r\n", 18};
static const Text COMMIT = {"Nats-Batch-Commit: 1\r\n", 22};

static PyObject *block(PyObject *self, PyObject *args)
{
    PyObject *messages, *prepared, *prepare;
    Text reply, batch, behind;
    if (!PyArg_ParseTuple(args, "O!O!Os#z#z#", &PyList_Type, &messages, &PyDict_Type, &prepared,
                          &prepare, &reply.start, &reply.size, &batch.start, &batch.size,
                          &behind.start, &behind.size))
        return NULL;
    char id[LONGEST_ID];
    int is_whole = batch.start || behind.start;
    if (!(messages = PyList_AsTuple(messages)))
        return NULL;
    Py_ssize_t last = PyTuple_GET_SIZE(messages);
    Buffer buffer;
    if (!begin(&buffer, room_for(messages, 0, PY_SSIZE_T_MAX)))
        goto failed;
    for (Py_ssize_t at = 0; at < last; at++) {
        Parts parts;
        Text constants, subject, seq_name, names[MOST_VALUES];
        char sequence[64], inbox[24], sizes[64];
        if (!parts_of(PyTuple_GET_ITEM(messages, at), prepared, prepare, &parts) ||
            !text_of(PyTuple_GET_ITEM(parts.prepared, 0), &constants) ||
            !text_of(PyTuple_GET_ITEM(parts.prepared, 2), &seq_name) ||
            !text_of(PyTuple_GET_ITEM(parts.prepared, 3), &subject))
            goto failed;
        Text seq = {parts.digits, (Py_ssize_t)strlen(parts.digits)};
        Text of_batch = {sequence, 0}, answer = {inbox, 0};
        int ends = is_whole && at == last - 1, asks = !is_whole || ends;
        if (batch.start)
            of_batch.size = snprintf(sequence, sizeof sequence, "Nats-Batch-Sequence: %zd\r\n",
                                     at + 1);
        if (asks)
            answer.size = snprintf(inbox, sizeof inbox, "%zd", is_whole ? 0 : at);
        size_t head = (size_t)(VERSION.size + constants.size + ID.size + parts.id.size + seq_name.size +
                                seq.size) + 6;
        for (Py_ssize_t i = 0; i < parts.of.count; i++) {
            if (!text_of(PyTuple_GET_ITEM(parts.names, i), &names[i]))
                goto failed;
            head += (size_t)(names[i].size + parts.of.values[i].size) + 2;
        }
        if (batch.start)
            head += (size_t)(15 + batch.size + 2 + of_batch.size) + (size_t)(ends ? COMMIT.size : 0);
        else if (!is_whole && last > 1)
            head += (size_t)WINDOW.size;
        if (behind.size)
            head += (size_t)(at ? BEHIND.size + behind.size + 2 : behind.size);
        Text counts = {sizes, snprintf(sizes, sizeof sizes, " %zu %zu\r\n", head,
                                     head + (size_t)parts.data.size)};
        size_t whole = (size_t)(5 + subject.size + (parts.token.size ? 1 + parts.token.size : 0) + 1 +
                                (asks ? reply.size + answer.size : 0) + counts.size) +
                       head + (size_t)parts.data.size + 2;
        char *out = claim(&buffer, whole);
        if (!out)
            goto failed;
        out = put(put(out, (Text){"HPUB ", 5}), subject);
        if (parts.token.size) {
            *out++ = '.';
            out = put(out, parts.token);
        }
        *out++ = ' ';
        if (asks)
            out = put(put(out, reply), answer);
        out = put(put(out, counts), VERSION);
        if (behind.size)
            out = at ? put(put(put(out, BEHIND), behind), LINE) : put(out, behind);
        if (batch.start) {
            out = put(put(put(out, (Text){"Nats-Batch-Id: ", 15}), batch), LINE);
            out = put(out, of_batch);
            if (ends)
                out = put(out, COMMIT);
        } else if (!is_whole && last > 1) {
            out = put(out, WINDOW);
        }
        out = put(put(put(out, ID), parts.id), LINE);
        out = put(put(put(put(out, constants), seq_name), seq), LINE);
        for (Py_ssize_t i = 0; i < parts.of.count; i++)
            out = put(put(put(out, names[i]), parts.of.values[i]), LINE);
        put(put(put(out, LINE), parts.data), LINE);
        if (behind.start) {
            if (parts.id.size > LONGEST_ID) {
                PyErr_SetString(PyExc_ValueError, "an id that is too long");
                goto failed;
            }
            put(id, parts.id);
            behind = (Text){id, parts.id.size};
        }
    }
    Py_DECREF(messages);
    return finish(&buffer);
failed:
    Py_DECREF(messages);
    Py_XDECREF(buffer.bytes);
    return NULL;
}

static PyMethodDef methods[] = {
    {"hash_with", hash_with, METH_VARARGS, NULL},
    {"whole", whole, METH_VARARGS, NULL},
    {"table", table, METH_O, NULL},
    {"json", json, METH_VARARGS, NULL},
    {"form", form, METH_VARARGS, NULL},
    {"events", events, METH_VARARGS, NULL},
    {"identities", identities, METH_VARARGS, NULL},
    {"remember", remember, METH_VARARGS, NULL},
    {"merkle_root", merkle_root, METH_O, NULL},
    {"credit_body", credit_body, METH_O, NULL},
    {"credit_identities", credit_identities, METH_O, NULL},
    {"by_kind", by_kind, METH_O, NULL},
    {"records", records, METH_VARARGS, NULL},
    {"block", block, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    name_update = PyUnicode_InternFromString("update");
    name_digest = PyUnicode_InternFromString("digest");
    name_kind = PyUnicode_InternFromString("kind");
    if (!name_update || !name_digest || !name_kind)
        return NULL;
    make_hex();
    if (PyType_Ready(&lazy_type))
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddObjectRef(made, "LazyMessage", (PyObject *)&lazy_type))
        Py_CLEAR(made);
    return made;
}
