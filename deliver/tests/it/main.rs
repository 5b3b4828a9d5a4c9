//! Both ends of the router link over real sockets, with a router that does as the test says.

mod attach;
mod calls;
mod harness;
mod hello;
mod reach;
mod say;
