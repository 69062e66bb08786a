// Package paycode is the reference implementation of the codes that cross the counter: ONLINE, SIGNED, ORDER, RECEIPT and
// the eight confirmation digits, the recognition of everything else that a customer may hold up, and QR pictures out and in.
//
// Guarantees: a code of ours has one text; whatever is not byte for byte what the maker would have written is MALFORMED.
// A verdict is a pure function of the text, the keys handed in and the time handed in; the first refusal in the order of the
// formats is the one that is named. A key is never taken from the message that it verifies. Nothing here panics, whatever
// the text or the picture, and every input has a bound on size; pictures have a bound on time too. No state is kept: all
// functions may be called from any number of goroutines.
//
// Duties of the caller: replay, deny list, limits and "is this my order" need the book and are judged there (steps 7 to 9
// of SIGNED, [Receipt.Match] for RECEIPT). Line ends are the scanner's to remove. Texts of codes never go into a log.
//
// The formats stand in FORMAT.md beside the code.
package paycode
