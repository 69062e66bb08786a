package ledgercache

import "yupos/ledgercache/payment"

// eachOpenTrade reads all trades that are not final, oldest first.
func eachOpenTrade(s state, each func(payment.Payment) error) error {
	return s.scan(prefixOpenTrade, nil, false, func(k, _ []byte) (bool, error) {
		var p payment.Payment
		if err := get(s, key(prefixTrade, k[len(prefixOpenTrade):]), &p); err != nil {
			return false, err
		}
		return true, each(p)
	})
}

// eachOpenRefund reads all refunds that the ledger has not ended, oldest first.
func eachOpenRefund(s state, each func(payment.Refund) error) error {
	return s.scan(prefixOpenRefund, nil, false, func(k, _ []byte) (bool, error) {
		var f payment.Refund
		if err := get(s, key(prefixRefund, k[len(prefixOpenRefund):]), &f); err != nil {
			return false, err
		}
		return true, each(f)
	})
}
