package entra

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MergeClaims returns the claims parameter: the claims that the caller passes on from a challenge, and, when the client
// handles continuous access evaluation, the capability "cp1". It is empty when there is neither.
func MergeClaims(claims string, enableCAE bool) (string, error) {
	if claims == "" && !enableCAE {
		return "", nil
	}
	merged, err := object([]byte(claims))
	if err != nil {
		return "", errors.New("the claims are not a JSON object")
	}
	if enableCAE {
		accessToken, err := object(merged["access_token"])
		if err != nil {
			return "", errors.New(`the "access_token" member of the claims is not a JSON object`)
		}
		accessToken["xms_cc"] = json.RawMessage(`{"values":["cp1"]}`)
		if merged["access_token"], err = json.Marshal(accessToken); err != nil {
			return "", fmt.Errorf("merging the claims: %w", err)
		}
	}
	out, err := json.Marshal(merged)
	if err != nil {
		return "", fmt.Errorf("merging the claims: %w", err)
	}
	return string(out), nil
}

// object reads a JSON object and leaves its members as they are; nothing at all is the empty object.
func object(data []byte) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if len(data) == 0 {
		return members, nil
	}
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errors.New("null is not an object")
	}
	return members, nil
}
