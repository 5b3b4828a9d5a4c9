use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use super::*;

fn get_path(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("valid timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn the_port_tells_alive_ready_and_numbers() {
    let reasons: Arc<Mutex<Vec<String>>> = Arc::default();
    let registry = Registry::new();
    register_process_metrics(&registry).expect("registered once");
    let asked = Arc::clone(&reasons);
    let readiness: Readiness = Arc::new(move || {
        let reasons = asked.lock().expect("not poisoned");
        if reasons.is_empty() { Ok(()) } else { Err(reasons.clone()) }
    });
    let parts = AdminParts { registry, readiness, heartbeat: Heartbeat::new() };
    let server = AdminServer::start(([127, 0, 0, 1], 0).into(), parts).expect("bound");
    let address = server.local_addr();
    assert!(get_path(address, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get_path(address, "/readyz").starts_with("HTTP/1.1 200"));
    reasons.lock().expect("not poisoned").extend(["draining".to_owned(), "log is full".into()]);
    let answer = get_path(address, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("draining\nlog is full\n"), "{answer}");
    let answer = get_path(address, "/metrics");
    for family in ["tidegate_build_info{", "process_open_fds ", "tidegate_allocator_resident_bytes "] {
        assert!(answer.contains(&format!("\n{family}")), "{family} in {answer}");
    }
    assert!(get_path(address, "/config").starts_with("HTTP/1.1 404"));
    server.stop();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_allocator_gives_memory_back_soon() {
    assert_eq!(allocator_warning(), None);
}
