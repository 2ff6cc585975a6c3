package policies

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

const webAddress = "10.244.0.2"

var webRef = podRef{types.NamespacedName{Namespace: "shop", Name: "web"}, "first"}

// node is a service with what surrounds it: pods that the API tells of, and an enforcement that may fail.
type node struct {
	*Service
	isDoorOpen bool
	isRunning  bool
	pods       map[podRef]*v1.Pod
	failure    error
	// Addresses that were covered, run by run.
	runs []map[podRef]string
}

func (n *node) open() error  { n.isDoorOpen = true; return nil }
func (n *node) close() error { n.isDoorOpen = false; return nil }

// fakeEnforcement knows the pods of a node.
type fakeEnforcement struct{ *node }

func (f fakeEnforcement) apply(_ []*networking.NetworkPolicy, young map[podRef]string) (map[podRef]string, error) {
	covered := map[podRef]string{}
	for ref, pod := range f.pods {
		covered[ref] = addressOf(pod, young)
	}
	f.runs = append(f.runs, covered)
	return covered, f.failure
}

func (f fakeEnforcement) findPod(ref podRef) *v1.Pod { return f.pods[ref] }
func (f fakeEnforcement) stop()                      { f.isRunning = false }

func newNode() *node {
	n := &node{Service: newService(nil), isDoorOpen: true, pods: map[podRef]*v1.Pod{}}
	n.policies = newIndexer()
	n.begin = func(context.Context) (enforcer, error) {
		n.isRunning = true
		return fakeEnforcement{n}, nil
	}
	return n
}

// run has the test in a bubble whose clock goes on when everybody waits.
func (n *node) run(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n.changed, n.arriving = make(chan struct{}, 1), make(chan *arrival)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go n.keepInForce(ctx, n)
		synctest.Wait()
		test(t)
	})
}

// within lets that much time pass.
func within(duration time.Duration) {
	time.Sleep(duration)
	synctest.Wait()
}

func (n *node) add(policy *networking.NetworkPolicy) {
	if err := n.policies.Add(policy); err != nil {
		panic(err)
	}
	n.change()
}

func (n *node) addPod(ref podRef, app, address string) {
	n.pods[ref] = &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name, UID: ref.uid, Labels: map[string]string{"app": app}},
		Status:     v1.PodStatus{PodIP: address},
	}
	n.change()
}

// create is what the runtime does before it creates a container. The service has had the time to look at it then.
func (n *node) create(t *testing.T, ref podRef) (outcome func() string) {
	answered := make(chan error, 1)
	go func() { answered <- n.await(t.Context(), ref, webAddress) }()
	within(2 * leastInterval)
	return func() string {
		select {
		case err := <-answered:
			answered <- err
			if err != nil {
				return err.Error()
			}
			return "created"
		default:
			return "waits"
		}
	}
}

func expect(t *testing.T, got func() string, want string) {
	t.Helper()
	if outcome := got(); !strings.Contains(outcome, want) {
		t.Errorf("the container: %s; want: %s", outcome, want)
	}
}

func forWeb() *networking.NetworkPolicy {
	return policyOf(networking.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}})
}

func TestWithoutPoliciesNothingRunsAndNobodyWaits(t *testing.T) {
	n := newNode()
	n.run(t, func(t *testing.T) {
		if n.isDoorOpen || n.isRunning {
			t.Errorf("open %v, running %v", n.isDoorOpen, n.isRunning)
		}
		// It asked just before the door closed.
		expect(t, n.create(t, webRef), "created")
		if len(n.young) != 0 {
			t.Errorf("remembered %v", n.young)
		}
	})
}

func TestAContainerWaitsForTheFirstRulesOfItsPod(t *testing.T) {
	n := newNode()
	n.run(t, func(t *testing.T) {
		n.add(forWeb())
		container := n.create(t, webRef)
		within(time.Second)
		expect(t, container, "waits")
		// The API tells of the pod later than the kubelet begins, and of its address later still.
		n.addPod(webRef, "web", "")
		within(leastInterval)
		expect(t, container, "created")
		if last := n.runs[len(n.runs)-1]; last[webRef] != webAddress {
			t.Errorf("covered %v", last)
		}
		runs := len(n.runs)
		expect(t, n.create(t, webRef), "created")
		if len(n.runs) > runs+1 || !n.isDoorOpen {
			t.Errorf("ran %d times more, open %v", len(n.runs)-runs, n.isDoorOpen)
		}
	})
}

func TestAPodOfTheSameNameDoesNotStandInForAnother(t *testing.T) {
	n := newNode()
	n.run(t, func(t *testing.T) {
		n.add(forWeb())
		// That one is not selected, and is covered.
		n.addPod(webRef, "other", "")
		within(leastInterval)
		expect(t, n.create(t, webRef), "created")
		second := podRef{webRef.NamespacedName, "second"}
		container := n.create(t, second)
		within(time.Second)
		expect(t, container, "waits")
		delete(n.pods, webRef)
		n.addPod(second, "web", "")
		within(leastInterval)
		expect(t, container, "created")
		if _, isKept := n.young[webRef]; isKept {
			t.Errorf("still young: %v", slices.Collect(maps.Keys(n.young)))
		}
	})
}

func TestRulesThatFailHoldUpOnlyThePodsThatNeedThem(t *testing.T) {
	n := newNode()
	n.failure = errors.New("no such table")
	n.run(t, func(t *testing.T) {
		n.add(forWeb())
		other := podRef{types.NamespacedName{Namespace: "shop", Name: "other"}, "other"}
		n.addPod(webRef, "web", "")
		n.addPod(other, "other", "")
		late, free := n.create(t, webRef), n.create(t, other)
		expect(t, free, "created")
		within(longestWait - time.Second)
		expect(t, late, "waits")
		within(time.Second)
		expect(t, late, "not in force after 8s")
		if len(n.waiting) > 1 {
			t.Errorf("%d wait", len(n.waiting))
		}
		// The kubelet tries again.
		again := n.create(t, webRef)
		runs := len(n.runs)
		within(time.Second)
		if tries := len(n.runs) - runs; tries > 5 {
			t.Errorf("tried %d times in a second", tries)
		}
		n.failure = nil
		within(longestWait - 2*time.Second)
		n.change()
		within(leastInterval)
		expect(t, again, "created")
	})
}

func TestRulesAreTriedAgainByThemselves(t *testing.T) {
	n := newNode()
	n.failure = errors.New("no such table")
	n.run(t, func(t *testing.T) {
		n.add(forWeb())
		if within(time.Hour); len(n.runs) < 100 || len(n.runs) > 200 {
			t.Errorf("tried %d times in an hour", len(n.runs))
		}
		n.failure = nil
		within(lastRetry + leastInterval)
		runs := len(n.runs)
		if within(time.Hour); len(n.runs) != runs {
			t.Errorf("ran %d times without a reason", len(n.runs)-runs)
		}
	})
}

func TestTheLastPolicyTakesTheRulesAlong(t *testing.T) {
	n := newNode()
	n.run(t, func(t *testing.T) {
		n.add(forWeb())
		n.addPod(webRef, "web", "")
		within(leastInterval)
		expect(t, n.create(t, webRef), "created")
		if err := n.policies.Delete(forWeb()); err != nil {
			t.Fatal(err)
		}
		n.change()
		if within(time.Second); n.isRunning || n.isDoorOpen || len(n.covered) != 0 || len(n.young) != 0 {
			t.Errorf("running %v, open %v, covered %v, young %v", n.isRunning, n.isDoorOpen, n.covered, n.young)
		}
	})
}

func TestAStartLooksForRulesOfTheProcessBefore(t *testing.T) {
	n := newNode()
	n.mayHaveRules = true
	n.failure = errors.New("no such table")
	n.run(t, func(t *testing.T) {
		if len(n.runs) != 1 || !n.isDoorOpen {
			t.Errorf("%d runs, open %v", len(n.runs), n.isDoorOpen)
		}
		n.failure = nil
		if within(time.Second); n.isRunning || n.isDoorOpen {
			t.Errorf("running %v, open %v", n.isRunning, n.isDoorOpen)
		}
		runs := len(n.runs)
		n.change()
		if within(time.Second); len(n.runs) != runs {
			t.Errorf("ran %d times more", len(n.runs)-runs)
		}
	})
}

func TestAStartFindsPodsThatRun(t *testing.T) {
	n := newNode()
	n.add(forWeb())
	n.addPod(webRef, "web", webAddress)
	n.run(t, func(t *testing.T) {
		expect(t, n.create(t, webRef), "created")
		if len(n.runs) == 0 || n.runs[0][webRef] != webAddress || len(n.young) != 0 {
			t.Errorf("covered %v, young %v", n.runs, n.young)
		}
	})
}

func TestAPodIsKnownByTheUIDThatTheKubeletHas(t *testing.T) {
	pods := cache.NewSharedIndexInformer(nil, &v1.Pod{}, 0, cache.Indexers{})
	add := func(meta metav1.ObjectMeta) {
		pod, err := withoutUnread(&v1.Pod{ObjectMeta: meta})
		if err == nil {
			err = pods.GetStore().Add(pod)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add(metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "first"})
	add(metav1.ObjectMeta{Namespace: "shop", Name: "file", UID: "in-the-api", Annotations: map[string]string{v1.MirrorPodAnnotationKey: "of-the-file"}})
	e := enforcement{pods: pods}
	for ref, isThere := range map[podRef]bool{
		webRef: true, {webRef.NamespacedName, "second"}: false,
		{types.NamespacedName{Namespace: "shop", Name: "file"}, "of-the-file"}: true,
	} {
		if found := e.findPod(ref); found != nil != isThere {
			t.Errorf("%v: found %v", ref, found)
		}
	}
}

func TestAJumpIsPutFirstAgainWhereverItIs(t *testing.T) {
	const jump = "INPUT -j KUBE-ROUTER-INPUT"
	table := func(rules ...string) string { return "*filter\n" + strings.Join(rules, "") + "COMMIT\n" }
	for name, test := range map[string]struct {
		saved string
		want  []string
	}{
		"as the last run left it": {"", []string{"-D " + jump, "-I " + jump}},
		"removed by somebody":     {table("-A INPUT -j KUBE-FIREWALL\n"), []string{"-I " + jump}},
		"there twice": {table("-A "+jump+"\n", "-A INPUT -j KUBE-FIREWALL\n", "-A "+jump+"\n"),
			[]string{"-D " + jump, "-D " + jump, "-I " + jump}},
	} {
		if got := jumpRules([]string{jump}, test.saved); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
