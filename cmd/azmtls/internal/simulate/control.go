package simulate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/azmtls/azmtls/imdstest"
)

// control is the HTTP endpoint by which a test in another process steers the simulator.
type control struct {
	server *imdstest.Server

	mu      sync.Mutex
	next    int
	removes map[int]func()
}

// newControl returns its handler:
//
//	POST   /faults      faults in JSON, answered with their numbers
//	DELETE /faults      all of them
//	DELETE /faults/{n}  one
//	GET    /rejections  requests that the real services would refuse as well
//	GET    /counts      how often things have happened
func newControl(server *imdstest.Server, faults []imdstest.Fault) http.Handler {
	c := &control{server: server, removes: map[int]func(){}}
	c.inject(faults)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /faults", c.add)
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		c.remove(func(int) bool { return true })
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /faults/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || c.remove(func(i int) bool { return i == n }) == 0 {
			http.Error(w, "there is no such fault", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /rejections", func(w http.ResponseWriter, _ *http.Request) {
		rejections := server.Rejections()
		texts := make([]string, len(rejections))
		for i, r := range rejections {
			texts[i] = r.String()
		}
		reply(w, http.StatusOK, texts)
	})
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, server.Counts())
	})
	return mux
}

func (c *control) add(w http.ResponseWriter, r *http.Request) {
	faults, err := ReadFaults(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if n := c.injected(); n+len(faults) > maxInjected {
		http.Error(w, fmt.Sprintf("there are %d faults, and room for %d: remove some", n, maxInjected), http.StatusConflict)
		return
	}
	reply(w, http.StatusCreated, map[string]any{"faults": c.inject(faults)})
}

// maxInjected is how many faults there may be at once: a test in another process may forget to remove its own.
const maxInjected = 1000

func (c *control) injected() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.removes)
}

func (c *control) inject(faults []imdstest.Fault) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	numbers := []int{} // JSON's [], not null
	for _, f := range faults {
		c.next++
		c.removes[c.next] = c.server.Inject(f)
		numbers = append(numbers, c.next)
	}
	return numbers
}

func (c *control) remove(goes func(int) bool) (removed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, remove := range c.removes {
		if goes(n) {
			remove()
			delete(c.removes, n)
			removed++
		}
	}
	return removed
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
