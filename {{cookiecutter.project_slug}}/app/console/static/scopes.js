// What scopes allow, in one sentence each. Describe your own scopes here.

/** @type {Record<string, string>} */
const DESCRIPTIONS = {
  "users:read": "Read your own user.",
  "users:write": "Change your own name.",
  "api_keys:read": "List your keys, their usage and their history.",
  "api_keys:write": "Create, change, rotate and revoke your keys.",
  admin: "See and change all users and all keys.",
};

/** @type {Record<string, string>} */
const VERBS = { read: "Read", write: "Create, change and delete" };

/** @param {string} scope */
export function describe(scope) {
  const [noun, verb] = scope.split(":");
  const known = DESCRIPTIONS[scope];
  return known ?? `${VERBS[verb] ?? "Use"} ${noun.replaceAll("_", " ")}.`;
}
