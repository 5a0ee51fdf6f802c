// Gets a token by @azure/identity, which asks IMDS v1: token.mjs NODE-MODULES SCOPE [CLIENT-ID]
import { createRequire } from "node:module";

const [modules, scope, clientId] = process.argv.slice(2);
const { ManagedIdentityCredential } = createRequire(`${modules}/`)("@azure/identity");
const credential = clientId ? new ManagedIdentityCredential({ clientId }) : new ManagedIdentityCredential();
try {
  const { token, expiresOnTimestamp } = await credential.getToken(scope);
  console.log(JSON.stringify({ token, expires: expiresOnTimestamp }));
} catch (error) {
  console.log(JSON.stringify({ error: `${error}` }));
}
