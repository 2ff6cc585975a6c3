import { FakeCluster } from '../fakes/fake-cluster.ts';
import { FakeObjectStore } from '../fakes/fake-object-store.ts';
import { describeCluster } from './cluster-contract.ts';
import { describeObjectStore } from './object-store-contract.ts';

describeCluster('FakeCluster', () => Promise.resolve(new FakeCluster()));
describeObjectStore('FakeObjectStore', () => Promise.resolve(new FakeObjectStore()));
