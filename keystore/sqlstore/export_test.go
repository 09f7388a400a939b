package sqlstore

// StrayGrants finds what is wrong in the table grants.
var StrayGrants = strayGrants

// TookOver has the server that is read next count as another one than the last.
func (s *Store) TookOver() { s.engine.(*postgres).fed.Store("00000000") }
