// Package openapi serves descriptions of APIs, which are written by hand in YAML.
// Its subpackage contract holds an API against its description in tests.
package openapi

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// Document serves a description, or another public document.
func Document(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		// A browser's page elsewhere may read it: it is public.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = w.Write(body)
	})
}

// JSON is a description that is written in YAML. It keeps the order of members,
// which a reader of the document sees.
func JSON(doc []byte) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(doc, &node); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	if err := encodeNode(enc, &node); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func encodeNode(enc *jsontext.Encoder, n *yaml.Node) error {
	switch n.Kind {
	case yaml.DocumentNode:
		return encodeNode(enc, n.Content[0])
	case yaml.AliasNode:
		return encodeNode(enc, n.Alias)
	case yaml.MappingNode:
		return encodeNodes(enc, n.Content, jsontext.BeginObject, jsontext.EndObject)
	case yaml.SequenceNode:
		return encodeNodes(enc, n.Content, jsontext.BeginArray, jsontext.EndArray)
	case yaml.ScalarNode:
		return encodeScalar(enc, n)
	}
	return fmt.Errorf("line %d: unknown kind of node", n.Line)
}

func encodeNodes(enc *jsontext.Encoder, nodes []*yaml.Node, begin, end jsontext.Token) error {
	if err := enc.WriteToken(begin); err != nil {
		return err
	}
	for i, n := range nodes {
		name := begin.Kind() == '{' && i%2 == 0
		if name {
			if err := enc.WriteToken(jsontext.String(n.Value)); err != nil {
				return fmt.Errorf("line %d: %w", n.Line, err)
			}
			continue
		}
		if err := encodeNode(enc, n); err != nil {
			return err
		}
	}
	return enc.WriteToken(end)
}

func encodeScalar(enc *jsontext.Encoder, n *yaml.Node) error {
	switch n.Tag {
	case "!!bool", "!!int", "!!float", "!!null":
		// The document writes these as JSON does.
		return enc.WriteValue(jsontext.Value(n.Value))
	}
	return enc.WriteToken(jsontext.String(n.Value))
}
