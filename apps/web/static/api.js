// Calls to the server. Every error becomes a Failure with a message and a remedy to show.

const TIMEOUT = 20_000;

export class Failure extends Error {
  constructor(status, code, message, remedy = "") {
    super(message);
    Object.assign(this, { status, code, remedy });
  }

  /** Whether the same request may succeed later. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** The page's project if its server has several: ?project=ID in the address and in each call; else null. */
export const project = new URLSearchParams(location.search).get("project");

let headers = { "X-Align": "1" };

/** Sends the person's id with every call. The server refuses calls once somebody else is logged in in this browser. */
export function actAs(id) {
  headers = { ...headers, "X-Align-Person": String(id) };
}

export async function call(method, path, body, { keepalive = false, timeout = TIMEOUT } = {}) {
  const response = await request(method, path, body, { keepalive, signal: AbortSignal.timeout(timeout) });
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  throw failure(response.status, answer);
}

/** A whole file as a blob. */
export async function file(path) {
  const response = await request("GET", path);
  if (!response.ok) throw failure(response.status, await response.json().catch(() => null));
  return response.blob().catch(() => {
    throw lost();
  });
}

/** The events of a streamed answer, one line of JSON each. Empty lines keep the connection alive. */
export async function* stream(path, body, signal) {
  const response = await request("POST", path, body, { signal });
  if (!response.ok) throw failure(response.status, await response.json().catch(() => null));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw lost();
    });
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

async function request(method, path, body, options) {
  try {
    return await fetch(`/api/${named(path)}`, {
      method,
      headers: { ...headers, ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
      ...options,
    });
  } catch {
    throw lost();
  }
}

const named = (path) => (project === null ? path : `${path}${path.includes("?") ? "&" : "?"}project=${encodeURIComponent(project)}`);

const lost = () => new Failure(0, "network", "The server cannot be reached.", "Check the connection.");

function failure(status, answer) {
  const { code = "server", message = "The server failed.", remedy = "" } = answer?.error ?? {};
  return new Failure(status, code, message, remedy);
}

/** A version 4 UUID; crypto.randomUUID exists over https and on localhost only. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
