package console

import (
	"maps"

	"github.com/simlatch/simlatch/internal/auth"
)

// Forms are all forms there are, with the roles they take.
func Forms() map[string]auth.Role {
	forms := map[string]auth.Role{}
	for pattern, f := range (&Console{}).forms() {
		forms[pattern] = f.need
	}
	return forms
}

// Pages are all pages there are.
func Pages() map[string]bool {
	pages := map[string]bool{}
	for pattern := range maps.Keys((&Console{}).pages()) {
		pages[pattern] = true
	}
	return pages
}
