package sqlstore

// StrayGrants finds what is wrong in the table grants.
var StrayGrants = strayGrants
