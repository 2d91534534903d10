// Renders Ollama TEMPLATEs as Ollama's template.Execute does: one JSON case a line in, one JSON result a line out.
//
//	{"template": "…", "messages": [{"role": "user", "content": "…"}], "think": false}   think may be absent
//	{"text": "…"} or {"error": "…"}
//
// The rules are those of template/template.go in github.com/ollama/ollama: all system messages are collected in
// .System, neighbours of one role become one message, keys that are missing count as empty, and a template that
// mentions .Messages is executed once.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
)

type message struct {
	Role     string `json:"role"`
	Content  string `json:"content"`
	Thinking string `json:"thinking"`
}

type testCase struct {
	Template string    `json:"template"`
	Messages []message `json:"messages"`
	Think    *bool     `json:"think"`
}

type result struct {
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

func collate(messages []message) (string, []*message) {
	var system []string
	var collated []*message
	for i := range messages {
		if messages[i].Role == "system" {
			system = append(system, messages[i].Content)
		}
		if n := len(collated); n > 0 && collated[n-1].Role == messages[i].Role && messages[i].Role != "tool" {
			collated[n-1].Content += "\n\n" + messages[i].Content
		} else {
			collated = append(collated, &messages[i])
		}
	}
	return strings.Join(system, "\n\n"), collated
}

func render(c testCase) (string, error) {
	parsed, err := template.New("").Option("missingkey=zero").Parse(c.Template)
	if err != nil {
		return "", err
	}
	system, messages := collate(c.Messages)
	var text strings.Builder
	err = parsed.Execute(&text, map[string]any{
		"System":     system,
		"Messages":   messages,
		"Response":   "",
		"Think":      c.Think != nil && *c.Think,
		"IsThinkSet": c.Think != nil,
	})
	return text.String(), err
}

func run(source, target string) error {
	input, err := os.Open(source)
	if err != nil {
		return err
	}
	defer input.Close()
	output, err := os.Create(target)
	if err != nil {
		return err
	}
	defer output.Close()
	cases, results := json.NewDecoder(bufio.NewReader(input)), json.NewEncoder(output)
	for cases.More() {
		var c testCase
		if err := cases.Decode(&c); err != nil {
			return err
		}
		var r result
		if text, err := render(c); err != nil {
			r.Error = err.Error()
		} else {
			r.Text = text
		}
		if err := results.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: ollama_render CASES.jsonl RESULTS.jsonl")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
