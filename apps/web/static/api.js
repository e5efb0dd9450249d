// Calls to the server. Everything that can go wrong becomes a Failure with words for the person who reads them.

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

let headers = { "X-Align": "1" };

/** From now on calls are this person's, and refused once somebody else is logged in in this browser. */
export function speakFor(id) {
  headers = { ...headers, "X-Align-Person": String(id) };
}

export async function call(method, path, body, { keepalive = false } = {}) {
  let response;
  try {
    response = await fetch(`/api/${path}`, {
      method,
      keepalive,
      headers: { ...headers, ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
      signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch {
    throw new Failure(0, "network", "The server cannot be reached.", "Check the connection.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const { code = "server", message = "The server failed.", remedy = "" } = answer?.error ?? {};
  throw new Failure(response.status, code, message, remedy);
}

/** A version 4 UUID; crypto.randomUUID exists over https and on localhost only. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
