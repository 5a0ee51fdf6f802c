package imdstest

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
)

// Edit is the action that changes the JSON object of the answer, AtAnswer of Metadata, Issue, V1 and Token. Answers
// that are not 200 stay as they are.
type Edit func(map[string]any)

func (a Edit) misfit(f Fault) string {
	switch {
	case a == nil:
		return "it needs a function"
	case f.Endpoint == Resource:
		return "the answer of the endpoint Resource is its handler's, who knows what it is"
	}
	return change(f)
}

func (a Edit) strike(m *moment) error {
	var body map[string]any
	if m.answer.status != http.StatusOK || json.Unmarshal(m.answer.body.Bytes(), &body) != nil {
		return nil
	}
	a(body)
	m.answer.body.Reset()
	writeJSON(m.answer, http.StatusOK, body)
	return nil
}

// change says why a fault whose action changes an answer makes no sense.
func change(f Fault) string {
	if f.At != AtAnswer {
		return "only AtAnswer is there an answer to change"
	}
	return ""
}

// SetHeader is the action that replaces headers of the answer, AtAnswer. A nil value removes the header, Date for
// example.
type SetHeader http.Header

func (a SetHeader) misfit(f Fault) string {
	if len(a) == 0 {
		return "it needs a header"
	}
	return change(f)
}

func (a SetHeader) strike(m *moment) error {
	for name, values := range a {
		m.answer.header[http.CanonicalHeaderKey(name)] = values // net/http adds no header that is there with nil
	}
	return nil
}

// Truncate is the action that announces the whole answer by its Content-Length, sends half of it and a FIN, AtAnswer.
type Truncate struct{}

func (Truncate) misfit(f Fault) string { return change(f) }

func (Truncate) strike(m *moment) error {
	m.answer.header.Set("Content-Length", strconv.Itoa(m.answer.body.Len()))
	m.begin()
	_ = http.NewResponseController(m.writer).Flush()
	return EOF{}.strike(m)
}

// ForeignKey is the action that issues the certificate for another key than the one in the request, AtAnswer of Issue.
type ForeignKey struct{}

func (ForeignKey) misfit(f Fault) string {
	if f.Endpoint != Issue {
		return "certificates come from the endpoint Issue"
	}
	return change(f)
}

func (ForeignKey) strike(m *moment) error {
	return Edit(func(body map[string]any) {
		stranger := must(rsa.GenerateKey(rand.Reader, 2048))
		clientID, _ := body["client_id"].(string)
		leaf := must(m.server.authority.issue(m.server.options, stranger.Public(), clientID))
		body["certificate"] = base64.StdEncoding.EncodeToString(leaf.Raw)
	}).strike(m)
}
