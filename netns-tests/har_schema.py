# SPDX-License-Identifier: GPL-2.0-only
"""HAR 1.2 as J. Odvarko's specification has it, as a JSON schema: what must be there, and of which type.

Members whose names begin with an underscore are others' own; besides them only those of the standard may be there.
"""

import jsonschema


def record(required, **optional):
    members = {**required, **optional, "comment": {"type": "string"}}
    return {"type": "object", "required": list(required), "properties": members,
            "patternProperties": {"^_": {}}, "additionalProperties": False}  # fmt: skip


def many(items):
    return {"type": "array", "items": items}


TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": -1}
NUMBER = {"type": "number"}
DURATION = {"type": "number", "minimum": 0}
OPTIONAL_DURATION = {"type": "number", "minimum": -1}
FLAG = {"type": "boolean"}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}
URL = {"type": "string", "pattern": r"^[a-z][a-z0-9+.-]*://[][A-Za-z0-9._~:!$&'()*+,;=%-]+[][A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*$"}
PAIR = record({"name": TEXT, "value": TEXT})
COOKIE = record({"name": TEXT, "value": TEXT}, path=TEXT, domain=TEXT, expires=TIME, httpOnly=FLAG, secure=FLAG)
POST = record(
    {"mimeType": TEXT, "params": many(record({"name": TEXT}, value=TEXT, fileName=TEXT, contentType=TEXT)), "text": TEXT}
)
CONTENT = record({"size": COUNT, "mimeType": TEXT}, compression={"type": "integer"}, text=TEXT, encoding=TEXT)
HEAD = {"httpVersion": TEXT, "cookies": many(COOKIE), "headers": many(PAIR), "headersSize": COUNT, "bodySize": COUNT}
ENTRY = record(
    {
        "startedDateTime": TIME,
        "time": DURATION,
        "request": record({"method": TEXT, "url": URL, "queryString": many(PAIR), **HEAD}, postData=POST),
        "response": record({"status": {"type": "integer"}, "statusText": TEXT, "content": CONTENT, "redirectURL": TEXT, **HEAD}),
        "cache": record({}),
        "timings": record({"send": DURATION, "wait": DURATION, "receive": DURATION},
                          blocked=OPTIONAL_DURATION, dns=OPTIONAL_DURATION, connect=OPTIONAL_DURATION, ssl=OPTIONAL_DURATION),
    },
    pageref=TEXT, serverIPAddress={"type": "string", "pattern": r"^[0-9a-f.:]+$"}, connection=TEXT,
)  # fmt: skip
# Safari takes no archive without a page (WebKit, Source/WebInspectorUI/UserInterface/Views/NetworkTableContentView.js).
PAGES = many(record({"startedDateTime": TIME, "id": TEXT, "title": TEXT,
                     "pageTimings": record({}, onContentLoad=OPTIONAL_DURATION, onLoad=OPTIONAL_DURATION)})) | {"minItems": 1}  # fmt: skip
NAMED = record({"name": TEXT, "version": TEXT})
ARCHIVE = {
    "type": "object",
    "required": ["log"],
    "additionalProperties": False,
    "properties": {
        "log": record({"version": {"const": "1.2"}, "creator": NAMED, "entries": many(ENTRY)}, pages=PAGES, browser=NAMED)
        | {"required": ["version", "creator", "pages", "entries"]}
    },
}


def check(archive):
    """Fails with what is wrong and where; and what no schema can say: entries are of pages that there are."""
    jsonschema.validate(archive, ARCHIVE)
    pages = {page["id"] for page in archive["log"]["pages"]}
    for entry in archive["log"]["entries"]:
        assert entry["pageref"] in pages
        parts = entry["timings"]
        assert abs(entry["time"] - sum(parts[part] for part in ("send", "wait", "receive"))) < 1e-3
