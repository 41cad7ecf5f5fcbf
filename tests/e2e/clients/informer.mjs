// An informer of @kubernetes/client-node over ConfigMaps: node informer.mjs NAMESPACE. One line per event on stdout.
import { KubeConfig, CoreV1Api, makeInformer, PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';

const namespace = process.argv[2];
const config = new KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(CoreV1Api);
const say = (...words) => console.log(words.join(' '));
const seen = [];
const waiting = [];
const notice = (event) => (o) => {
  const line = `${event} ${o.metadata.name} ${o.data?.k ?? ''}`.trim();
  if (!o.metadata.name.startsWith('node-')) return;
  seen.push(line);
  say(line);
  for (const w of [...waiting]) w();
};
const until = (line) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error(`never seen: ${line}`)), 120000);
  const look = () => { if (seen.includes(line)) { clearTimeout(timer); resolve(); } };
  waiting.push(look);
  look();
});

const informer = makeInformer(
  config, `/api/v1/namespaces/${namespace}/configmaps`, () => core.listNamespacedConfigMap({ namespace }));
for (const event of ['add', 'update', 'delete']) informer.on(event, notice(event));
let stopping = false;
informer.on('error', (error) => { if (!stopping) { say('error', error); process.exit(1); } });

const body = (name, k) => ({ metadata: { name, namespace }, data: { k } });
await core.createNamespacedConfigMap({ namespace, body: body('node-before', '1') });
await informer.start();
await until('add node-before 1');
await core.createNamespacedConfigMap({ namespace, body: body('node-after', '1') });
await until('add node-after 1');
const patch = [{ op: 'replace', path: '/data/k', value: '2' }];
await core.patchNamespacedConfigMap(
  { name: 'node-after', namespace, body: patch }, setHeaderOptions('Content-Type', PatchStrategy.JsonPatch));
await until('update node-after 2');
await core.replaceNamespacedConfigMap({ name: 'node-after', namespace, body: body('node-after', '3') });
await until('update node-after 3');
try {
  await core.createNamespacedConfigMap({ namespace, body: body('node-after', '1') });
} catch (error) {
  say('refused', error.code, JSON.parse(error.body).reason);
}
await core.deleteNamespacedConfigMap({ name: 'node-after', namespace });
await until('delete node-after 3');
say('cached', informer.list().map((o) => o.metadata.name).filter((n) => n.startsWith('node-')).join(','));
stopping = true; // the watch is aborted, which it tells as an error
await informer.stop();
