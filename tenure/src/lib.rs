//! The delivery protocol as pure state machines: Owner (router side) and Node (gateway side).
