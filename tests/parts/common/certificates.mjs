// A certificate authority and one server certificate for loopback, made new at each start, by the openssl command:
// Node.js cannot make certificates, and a committed key would one day expire in the middle of a test run.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const NAMES = 'DNS:localhost,DNS:orders.example,IP:127.0.0.1,IP:::1';
// What is wrong with a certificate: other names, an end in the past, another signer.
const KINDS = {
  good: {},
  'other-name': { names: 'DNS:orders.example' },
  expired: { days: '-1' },
  'self-signed': { signer: 'server' },
  unknown: { signer: 'another' },
};

// Returns the PEM texts to serve with, and the path of the CA that a client must be given.
export function certificates(directory, kind = 'good') {
  const { names = NAMES, days = '2', signer = 'ca' } = KINDS[kind];
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const at = (name) => join(directory, name);
  const openssl = (...words) => execFileSync('openssl', words, { stdio: ['ignore', 'ignore', 'pipe'] });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

  for (const name of new Set(['ca', signer === 'another' ? signer : 'ca'])) {
    openssl('req', '-x509', ...newKey, '-keyout', at(`${name}.key`), '-out', at(`${name}.pem`), '-days', '2',
      '-subj', '/CN=Countersign test parts', '-addext', 'basicConstraints=critical,CA:TRUE',
      '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  }
  openssl('req', ...newKey, '-keyout', at('server.key'), '-out', at('server.csr'), '-subj', '/CN=localhost');
  writeFileSync(at('server.ext'), [
    'basicConstraints=critical,CA:FALSE',
    'keyUsage=critical,digitalSignature',
    'extendedKeyUsage=serverAuth',
    ...(signer === 'server' ? [] : ['authorityKeyIdentifier=keyid']),
    `subjectAltName=${names}`,
    '',
  ].join('\n'));
  const signed = signer === 'server'
    ? ['-signkey', at('server.key')]
    : ['-CA', at(`${signer}.pem`), '-CAkey', at(`${signer}.key`), '-CAcreateserial'];
  openssl('x509', '-req', '-in', at('server.csr'), ...signed, '-out', at('server.pem'), '-days', days,
    '-extfile', at('server.ext'));

  return { key: readFileSync(at('server.key')), cert: readFileSync(at('server.pem')), ca: at('ca.pem') };
}
