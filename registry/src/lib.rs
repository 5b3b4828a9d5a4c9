//! Where a user is: the consistent-hash ring over registry members.
