package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
)

// mutant is one change to one file: the bytes from start to end become text. Lines keep their numbers.
type mutant struct {
	pkg, file  string // import path, path of the file
	line       int
	start, end int
	text, what string
}

// swapped is what takes the place of an operator.
var swapped = map[token.Token]string{
	token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">",
	token.EQL: "!=", token.NEQ: "==", token.LAND: "||", token.LOR: "&&",
	token.ADD: "-", token.SUB: "+", token.MUL: "/", token.QUO: "*",
}

// mutantsOf are all the changes that can be made to a file.
func mutantsOf(pkg, file string, source []byte) ([]mutant, error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []mutant
	at := func(p token.Pos) int { return files.Position(p).Offset }
	add := func(from, to token.Pos, text, what string) {
		found = append(found, mutant{
			pkg: pkg, file: file, line: files.Position(from).Line, start: at(from), end: at(to), text: text, what: what,
		})
	}
	remove := func(s ast.Node, what string) { add(s.Pos(), s.End(), "", what+" removed") }
	same := map[ast.Node]bool{} // numbers whose change would make the same program
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			condition := string(source[at(n.Cond.Pos()):at(n.Cond.End())])
			add(n.Cond.Pos(), n.Cond.End(), "!("+condition+")", "condition negated")
		case *ast.BinaryExpr:
			if other, ok := swapped[n.Op]; ok {
				end := n.OpPos + token.Pos(len(n.Op.String()))
				add(n.OpPos, end, other, fmt.Sprintf("%s became %s", n.Op, other))
			}
		case *ast.ExprStmt:
			remove(n, "call")
		case *ast.DeferStmt:
			remove(n, "defer")
		case *ast.IncDecStmt:
			remove(n, n.Tok.String())
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				remove(n, "assignment")
			}
		case *ast.CallExpr:
			if room := roomOf(n); room != nil {
				same[room] = true
				add(room.Pos(), room.End(), "0", "no room in a channel")
			}
		case *ast.BasicLit:
			if same[n] {
				break
			}
			// More than twice as much: one second more of patience is the same program to everybody.
			if value, err := strconv.ParseInt(n.Value, 0, 32); n.Kind == token.INT && err == nil {
				add(n.Pos(), n.End(), strconv.FormatInt(2*value+1, 10), fmt.Sprintf("%d became %d", value, 2*value+1))
			}
		case *ast.ReturnStmt:
			for _, zero := range besideAnError(n) {
				same[zero] = true
			}
			for _, result := range n.Results {
				switch name, _ := result.(*ast.Ident); {
				case name == nil:
				case name.Name == "true":
					add(name.Pos(), name.End(), "false", "returns false instead of true")
				case name.Name == "false":
					add(name.Pos(), name.End(), "true", "returns true instead of false")
				case name.Name == "err":
					add(name.Pos(), name.End(), "nil", "returns nil instead of err")
				}
			}
		}
		return true
	})
	return found, nil
}

// besideAnError returns the zeros that a function returns with an error: nobody looks at them, so that to change one is
// to write the same program.
func besideAnError(n *ast.ReturnStmt) (zeros []ast.Node) {
	if len(n.Results) == 0 {
		return nil
	}
	last := len(n.Results) - 1
	if name, ok := n.Results[last].(*ast.Ident); ok && slices.Contains([]string{"nil", "true", "false"}, name.Name) {
		return nil
	}
	for _, result := range n.Results[:last] {
		if zero, ok := result.(*ast.BasicLit); ok && zero.Value == "0" {
			zeros = append(zeros, zero)
		}
	}
	return zeros
}

// roomOf returns how much room a channel is made with, nil if the call makes none with room. More would be the same
// program; none makes somebody wait.
func roomOf(call *ast.CallExpr) ast.Node {
	if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "make" || len(call.Args) != 2 {
		return nil
	}
	if _, ok := call.Args[0].(*ast.ChanType); !ok {
		return nil
	}
	if room, ok := call.Args[1].(*ast.BasicLit); ok {
		return room
	}
	return nil
}
