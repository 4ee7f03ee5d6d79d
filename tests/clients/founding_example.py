import json
import os
import httpx
API = os.environ["POKEE_API"]
KEY = os.environ["POKEE_KEY"]
H = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
with httpx.Client(base_url=API, headers=H, timeout=httpx.Timeout(None)) as c:
    sid = c.post("/v1/sessions", json={"persistent": True}).json()["id"]
    with c.stream("POST", f"/v1/sessions/{sid}/messages",
                  json={"message": "Write a short poem about persistent storage."}) as r:
        for line in r.iter_lines():
            if line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:"):
                data = json.loads(line[5:].strip())
                if event == "text.delta":
                    print(data["content"], end="", flush=True)
                elif event == "message.completed":
                    print(f"\n\n[done] usage: {data['usage']}")
                elif event == "message.error":
                    print(f"\n\n[error] {data['error']}")
