package protocol

import "strings"

// A script is what a client sends in one conversation: strings are bytes, ints
// are descriptors, each by its number on one byte.
type script struct {
	name, shows string
	sends       []any
}

var scripts = []script{
	{"announcement", "the announcement comes before the client says anything", []any{}},
	{"find_endp_miss", "a look-up of an endpoint that has no connection", []any{findEndp("E")}},
	{"find_dest_miss", "a look-up of a destination that has no binding", []any{findDest("D")}},
	{"save_and_find_endp", "a connection is saved and found by its endpoint, once", []any{
		saveEndp("1000", "E", "EP"), 1, findEndp("E"), dummy, dummy, findEndp("E")}},
	{"save_and_find_dest", "a connection is found by a destination bound to its endpoint", []any{
		saveDest("1000", "D", "DP", "E"), saveEndp("1000", "E", "EP"), 1, findDest("D"), dummy, dummy, findDest("D")}},
	{"binding_without_connection", "a binding without a connection is a miss like any other; a connection that is saved later is found", []any{
		saveDest("1000", "D", "DP", "E"), findDest("D"), saveEndp("1000", "E", "EP"), 1, findDest("D"), dummy, dummy}},
	{"as_smtp_does", "labels and properties as smtp(8) writes them", []any{
		saveDest("2000", "smtp\n[127.0.0.1]:2501\n", "1\n[127.0.0.1]:2501\n", "smtp\n127.0.0.1\n2501\n0\n"),
		saveEndp("2000", "smtp\n127.0.0.1\n2501\n0\n", "mail.example\n127.0.0.1\n[127.0.0.1]:2501\n2501\n16\n0\n"), 1,
		findDest("smtp\n[127.0.0.1]:2501\n"), dummy, dummy}},
	{"oldest_first", "the connections of an endpoint come back oldest first, whatever their TTLs and properties", []any{
		saveEndp("3000", "E", "P1"), 1, saveEndp("1000", "E", "P2"), 2, saveEndp("2000", "E", "P2"), 3,
		findEndp("E"), dummy, dummy, findEndp("E"), dummy, dummy, findEndp("E"), dummy, dummy, findEndp("E")}},
	{"bindings_in_order", "bindings are tried in the order of first saving; a refresh keeps the place", []any{
		saveDest("1000", "D", "DA", "A"), saveDest("1000", "D", "DB", "B"), saveDest("2000", "D", "DA", "A"),
		saveEndp("1000", "B", "EB"), 1, saveEndp("1000", "A", "EA"), 2, saveEndp("1000", "A", "EA2"), 3,
		findDest("D"), dummy, dummy, findDest("D"), dummy, dummy, findDest("D"), dummy, dummy, findDest("D")}},
	{"second_binding", "one endpoint with two destination properties: the first saved answers", []any{
		saveDest("1000", "D", "first", "E"), saveDest("1000", "D", "second", "E"),
		saveEndp("1000", "E", "EP"), 1, findDest("D"), dummy, dummy, saveEndp("1000", "E", "EP"), 2, findDest("D"), dummy, dummy}},
	{"separate_names", "names of destinations and endpoints are separate spaces, and bindings do not chain", []any{
		saveEndp("1000", "X", "EP"), 1, findDest("X"), saveDest("1000", "Y", "DP", "X"), findEndp("Y"),
		saveDest("1000", "Z", "DP", "Y"), findDest("Z"), findDest("Y"), dummy, dummy}},
	{"empty_names", "names and properties may be empty", []any{
		findEndp(""), findDest(""), saveEndp("1000", "", ""), 1, saveDest("1000", "", "", ""), findDest(""), dummy, dummy, findDest("")}},
	{"byte_for_byte", "names compare byte for byte; any byte but NUL may be in them", []any{
		saveEndp("1000", "a\xff\x01\n{=}", "\xfe\n"), 1, findEndp("A\xff\x01\n{=}"), findEndp("a\xff\x01\n{=} "), findEndp("a\xff\x01\n{=}"), dummy, dummy}},
	{"glued_final_dummy", "the final dummy in one write with the next request", []any{
		saveEndp("1000", "E", "EP"), 1, findEndp("E"), dummy, dummy + findDest("D")}},
	{"both_dummies", "both dummies in one write after the status", []any{
		saveEndp("1000", "E", "EP"), 1, findEndp("E"), dummy + dummy, findDest("D")}},
	{"both_dummies_and_request", "both dummies and the next request in one write", []any{
		saveEndp("1000", "E", "EP"), 1, findEndp("E"), dummy + dummy + findEndp("E")}},
	{"dummy_values", "the value of a dummy does not matter", []any{
		saveEndp("1000", "E", "EP"), 1, findEndp("E"), message("dummy", "x"), message("dummy", "y"), findDest("D")}},
	{"byte_without_descriptor", "a byte without a descriptor where one is due: status 2, one byte consumed", []any{
		saveEndp("1000", "E", "EP"), "x", saveEndp("1000", "E", "EP"), "\x00" + findEndp("E"), findDest("D")}},
	{"stray_messages", "an empty message or a stray dummy is passed over; a request in the same write is served", []any{
		"\x00", dummy, "\x00" + findEndp("E"), dummy + findDest("D"), dummy + dummy + "\x00" + findEndp("E")}},
	{"unknown_request", "an unknown request gets status 1; request names compare byte for byte", []any{
		message("request", "none"), message("request", "Find_endp", "label", "E"), message("request", ""), message("request", "find_endp ", "label", "E"), findEndp("E")}},
	{"malformed_finds", "malformed look-ups get status 1 in the shape of their own reply", []any{
		message("request", "find_endp"), message("request", "find_dest"), message("request", "find_endp", "other", "x", "label", "E"),
		message("request", "find_dest", "Label", "D"), findEndp("E"), findDest("D")}},
	{"malformed_saves", "malformed saves get status 1, and no dummy; they have no effect", []any{
		message("request", "save_endp"), message("request", "save_endp", "label", "E", "ttl", "9", "property", "P"),
		message("request", "save_endp", "ttl", "9", "ttl", "9", "label", "E", "property", "P"),
		message("request", "save_dest", "ttl", "9", "label", "D", "property", "P"),
		message("request", "save_dest", "ttl", "9", "label", "D", "label", "E", "property", "P"), findEndp("E"), findDest("D")}},
	{"unknown_after_the_last", "an unknown attribute behind the last wanted one is ignored", []any{
		message("request", "save_endp", "ttl", "1000", "label", "E", "property", "EP", "other", "x"), 1,
		message("request", "save_dest", "ttl", "1000", "label", "D", "property", "DP", "label", "E", "other", "x"),
		message("request", "find_dest", "label", "D", "other", "x"), dummy, dummy}},
	{"ttl_refused", "texts that are no TTL", []any{
		saveDest("0", "D", "DP", "E"), saveDest("-1", "D", "DP", "E"), saveDest("", "D", "DP", "E"), saveDest("abc", "D", "DP", "E"),
		saveDest("5x", "D", "DP", "E"), saveDest("5 ", "D", "DP", "E"), saveDest("5\n", "D", "DP", "E"), saveDest("1.5", "D", "DP", "E"),
		saveDest("0x10", "D", "DP", "E"), saveDest("1e3", "D", "DP", "E"), saveDest("2147483648", "D", "DP", "E"),
		saveDest("4294967295", "D", "DP", "E"), saveDest("4294967296", "D", "DP", "E"), saveDest("99999999999999999999", "D", "DP", "E"),
		saveEndp("0", "E", "EP"), saveEndp("2147483648", "E", "EP"), findDest("D"), findEndp("E")}},
	{"ttl_accepted", "texts that are a TTL", []any{
		saveDest("1", "D", "DP", "E"), saveDest("05", "D", "DP", "E"), saveDest("2147483647", "D", "DP", "E"),
		saveEndp("2147483647", "E", "EP"), 1, saveEndp("000000000000000000000000001000", "E", "EP"), 2, findEndp("E"), dummy, dummy}},
	{"long_values", "values longer than a buffer of 4096 bytes", []any{
		saveEndp("1000", strings.Repeat("E", 4095), strings.Repeat("P", 4097)), 1,
		saveDest("1000", strings.Repeat("D", 4096), strings.Repeat("Q", 5000), strings.Repeat("E", 4095)),
		findDest(strings.Repeat("D", 4096)), dummy, dummy}},
	{"byte_by_byte", "a request in many pieces", append(append(pieces(saveEndp("1000", "E", "EP")), 1), append(append(pieces(findEndp("E")), pieces(dummy)...), pieces(dummy)...)...)},
}

func pieces(s string) (p []any) {
	for _, b := range []byte(s) {
		p = append(p, string([]byte{b}))
	}
	return p
}
