// What both programs share: their arguments, a new session, and the output of one JSON line per event.
//
//     node <program>.mjs BASE_URL KEY MESSAGE      or BASE_URL, KEY and MESSAGE in the environment

const [base = process.env.BASE_URL, key = process.env.KEY, message = process.env.MESSAGE] = process.argv.slice(2);
if (!base || !key || !message) {
  console.error("usage: node <program>.mjs BASE_URL KEY MESSAGE");
  process.exit(2);
}

const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };

export async function refuse(response) {
  throw new Error(`${response.status} ${await response.text()}`);
}

// The URL of a new session's messages, and the request that sends the message.
export async function newSession() {
  const response = await fetch(`${base}/v1/sessions`, { method: "POST", headers, body: "{}" });
  if (response.status !== 201) await refuse(response);
  const { id } = await response.json();
  return [`${base}/v1/sessions/${id}/messages`, { method: "POST", headers, body: JSON.stringify({ message }) }];
}

export function print(event, data) {
  console.log(JSON.stringify({ event, data: JSON.parse(data) }));
}
