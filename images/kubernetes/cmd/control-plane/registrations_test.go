package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	registration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

const registeredName = "v1beta1.metrics.k8s.io"

func registered(status registration.ConditionStatus, age time.Duration, labels map[string]string) *registration.APIService {
	return &registration.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: registeredName, UID: "1", Labels: labels},
		Status: registration.APIServiceStatus{Conditions: []registration.APIServiceCondition{{
			Type: registration.Available, Status: status, LastTransitionTime: metav1.NewTime(time.Now().Add(-age)),
		}}},
	}
}

// fakeRegistrations holds one APIService at most.
type fakeRegistrations struct {
	found *registration.APIService
	looks int
}

func (f *fakeRegistrations) Get(name string) (*registration.APIService, error) {
	f.looks++
	if f.found == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	return f.found, nil
}

func (f *fakeRegistrations) Create(_ context.Context, made *registration.APIService, _ metav1.CreateOptions) (*registration.APIService, error) {
	f.found = made
	return made, nil
}

func (f *fakeRegistrations) Delete(context.Context, string, metav1.DeleteOptions) error {
	f.found = nil
	return nil
}

func TestARegistrationIsThereAsLongAsItsServerAnswers(t *testing.T) {
	ours := map[string]string{registrationLabel: "while-it-answers"}
	tests := map[string]struct {
		found              *registration.APIService
		isSilent, isWanted bool
	}{
		"made when the server answers":               {nil, false, true},
		"not made before":                            {nil, true, false},
		"left alone as long as it is available":      {registered(registration.ConditionTrue, time.Hour, ours), true, true},
		"removed when nobody has answered for long":  {registered(registration.ConditionFalse, time.Hour, ours), true, false},
		"kept while its server is started again":     {registered(registration.ConditionFalse, time.Second, ours), true, true},
		"kept when the server answers again":         {registered(registration.ConditionFalse, time.Hour, ours), false, true},
		"left alone when it is of the user's making": {registered(registration.ConditionFalse, time.Hour, nil), true, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			held := &fakeRegistrations{found: test.found}
			registrar := registrar{lister: held, registrations: held, answers: func(context.Context, *registration.APIService) error {
				if test.isSilent {
					return errors.New("connection refused")
				}
				return nil
			}}
			if _, err := registrar.settle(t.Context(), registered("", 0, ours)); err != nil {
				t.Fatal(err)
			}
			if isThere := held.found != nil; isThere != test.isWanted {
				t.Fatalf("is there: %v", isThere)
			}
		})
	}
}

func TestNobodyLooksAsLongAsAllIsWellAndLessAndLessForASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours := map[string]string{registrationLabel: "while-it-answers"}
		held, isSilent := &fakeRegistrations{}, true
		registrar := registrar{
			wanted: []*registration.APIService{registered("", 0, ours)}, lister: held, registrations: held,
			changed: make(chan struct{}, 1),
			answers: func(context.Context, *registration.APIService) error {
				if isSilent {
					return errors.New("connection refused")
				}
				return nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go registrar.run(ctx)
		during := func(duration time.Duration) int {
			before := held.looks
			time.Sleep(duration)
			synctest.Wait()
			return held.looks - before
		}
		if times := during(5 * time.Second); times < 5 {
			t.Errorf("looked %d times in the first seconds", times)
		}
		if times := during(time.Hour); times > 400 {
			t.Errorf("looked %d times in an hour of silence", times)
		}
		isSilent = false
		if during(longestRegistrationPause); held.found == nil {
			t.Fatal("not made")
		}
		if times := during(time.Hour); times != 0 {
			t.Errorf("looked %d times while all was well", times)
		}
		isSilent, held.found = true, registered(registration.ConditionFalse, 0, ours)
		registrar.change()
		if times := during(6 * time.Second); times == 0 || held.found != nil {
			t.Errorf("looked %d times after it had failed", times)
		}
		if !registrar.isWanted(registered("", 0, nil)) || registrar.isWanted(&registration.APIService{}) {
			t.Error("woken by others")
		}
	})
}

func TestAStartForgetsRegistrationsAndAResetLeavesThemAlone(t *testing.T) {
	const ours, theirs = `{"labels":{"sandbar.dev/registered":"while-it-answers"}}`, `{"labels":{}}`
	directory := t.TempDir()
	first := openStore(t, directory, keyValues{apiServicePrefix + "ours": []byte(ours), apiServicePrefix + "theirs": []byte(theirs)})
	wanted := target(keyValues{}, allKeys(t, first), nodeRecord{name: "sandbar-dev"}, Keep{})
	if got := slices.Collect(maps.Keys(wanted)); len(got) != 1 || !strings.HasSuffix(got[0], "/ours") {
		t.Fatalf("a reset leaves %v", got)
	}
	first.close()
	second := openStore(t, directory, nil)
	if got := slices.Collect(maps.Keys(allKeys(t, second))); len(got) != 1 || !strings.HasSuffix(got[0], "/theirs") {
		t.Fatalf("after a start there are %v", got)
	}
}
