//! Several processes and a real Kafka, and what goes wrong between them.

#[path = "cluster/killed.rs"]
mod killed;
#[path = "cluster/tours.rs"]
mod tours;
