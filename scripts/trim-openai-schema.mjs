// Makes platform/data/openai/schemas.json from OpenAI's OpenAPI description (MIT), normalised so that it compiles under JSON Schema 2020-12:
//   node scripts/trim-openai-schema.mjs path/to/openapi.json 'openai/openai-openapi @ f85dbe2 (2026-08-21)' > platform/data/openai/schemas.json
// Keeps the answers of the routes Bulkhead serves and the schemas they reach, without prose; one schema a line so that a refresh reads well as a diff.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const [path, origin] = process.argv.slice(2);
if (path === undefined || origin === undefined) {
  console.error('usage: node scripts/trim-openai-schema.mjs <file> <origin>');
  process.exit(2);
}

const served = /^\/(chat\/completions|responses|conversations|embeddings|models|files|vector_stores|batches|fine_tuning\/jobs)(\/|$)/;
const mediaTypes = { 'application/json': 'json', 'text/event-stream': 'events' };
const prose = new Set(['description', 'title', 'example', 'examples', 'default', 'deprecated', 'discriminator']);
const prefix = '#/components/schemas/';
const source = readFileSync(path);
const description = JSON.parse(source.toString('utf8'));

const routes = collectRoutes();
// The error object is not declared per route but is what every route answers with from status 400 up.
const schemas = collectSchemas(['ErrorResponse', ...Object.values(routes).flatMap((answers) => Object.values(answers))]);
const lines = (object) =>
  Object.keys(object)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${JSON.stringify(object[key])}`)
    .join(',\n');
const sha256 = createHash('sha256').update(source).digest('hex');
process.stdout.write(
  `{"origin":${JSON.stringify(origin)},"licence":"MIT, see LICENSE","source_sha256":"${sha256}","routes":{\n${lines(routes)}\n},"schemas":{\n${lines(schemas)}\n}}\n`,
);

/** Route -> schema of its 200 answer by form. A form without a named schema (a file's raw content) is left out. */
function collectRoutes() {
  const found = {};
  for (const [template, operations] of Object.entries(description.paths)) {
    if (!served.test(template) || template.includes('?')) continue;
    for (const [method, operation] of Object.entries(operations)) {
      const answers = namedAnswers(operation.responses?.['200']?.content ?? {});
      if (Object.keys(answers).length > 0) found[`${method.toUpperCase()} /v1${template}`] = answers;
    }
  }
  return found;
}

function namedAnswers(content) {
  const answers = {};
  for (const [mediaType, { schema }] of Object.entries(content)) {
    if (schema?.$ref && mediaTypes[mediaType]) answers[mediaTypes[mediaType]] = schema.$ref.slice(prefix.length);
  }
  return answers;
}

function collectSchemas(roots) {
  const found = {};
  const waiting = [...roots];
  while (waiting.length > 0) {
    const name = waiting.pop();
    if (found[name]) continue;
    found[name] = withoutProse(description.components.schemas[name], name);
    for (const [, reached] of JSON.stringify(found[name]).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)) waiting.push(reached);
  }
  return found;
}

/** Drops annotations at keyword positions only: a property called `description` stays. */
function withoutProse(schema, name) {
  if (Array.isArray(schema)) return schema.map((part) => withoutProse(part, name));
  if (schema === null || typeof schema !== 'object') return schema;
  const kept = {};
  for (const [keyword, value] of Object.entries(schema)) {
    if (prose.has(keyword) || keyword.startsWith('x-') || keyword === '$recursiveAnchor') continue;
    if (keyword === 'properties') {
      kept.properties = Object.fromEntries(Object.entries(value).map(([property, part]) => [property, withoutProse(part, name)]));
      // JSON Schema 2019-09 wrote recursion so; 2020-12 has no such keyword.
    } else if (keyword === '$recursiveRef') kept.$ref = `${prefix}${name}`;
    else if (keyword === 'enum' || keyword === 'const' || keyword === 'required') kept[keyword] = value;
    else kept[keyword] = withoutProse(value, name);
  }
  return kept;
}
