use super::*;

fn parsed(body: &str) -> PublishRequest {
    publish(body.as_bytes(), None).expect("accepted").request
}

fn detail(body: &str) -> String {
    publish(body.as_bytes(), None).expect_err("refused").detail
}

#[test]
fn numbers_and_order_of_members_stay_as_written() {
    let request = parsed(r#"{"data": {"b": 12345678901234567890.10, "a": 1}, "channel": "c"}"#);
    assert_eq!(request.data, Data::Json(r#"{"b": 12345678901234567890.10, "a": 1}"#.into()));
}

#[test]
fn times_to_live() {
    let ttl = |text: &str| parsed(&format!(r#"{{"channel":"c","data":1,"ttl":{text}}}"#)).ttl_ms;
    assert_eq!(ttl("1500"), Some(1_500));
    assert_eq!(ttl("\"250ms\""), Some(250));
    assert_eq!(ttl("\"90s\""), Some(90_000));
    assert_eq!(ttl("\"15m\""), Some(900_000));
    assert_eq!(ttl("\"1h\""), Some(3_600_000));
    assert_eq!(ttl("\"2d\""), Some(172_800_000));
    for bad in [
        "\"\"",
        "\"s\"",
        "\"1.5h\"",
        "-1",
        "true",
        "\"1y\"",
        "\"99999999999999999999s\"",
        "\"9999999999999999d\"",
    ] {
        assert!(detail(&format!(r#"{{"channel":"c","data":1,"ttl":{bad}}}"#)).contains("ttl"), "{bad}");
    }
}

#[test]
fn unknown_fields_name_the_nearest() {
    assert!(detail(r#"{"chanel":"c"}"#).ends_with("did you mean \"channel\"?"));
    assert!(detail(r#"{"idempotencyKey":"c"}"#).ends_with("did you mean \"idempotency_key\"?"));
    assert!(detail(r#"{"zzzzzzzzzzzzzzzz":"c"}"#).contains("known are channel, channels"));
    assert!(detail(&format!(r#"{{"{}":1}}"#, "x".repeat(100_000))).len() < 300);
}

#[test]
fn one_target_in_the_singular_is_answered_with_one_object() {
    let single = |body: &str| publish(body.as_bytes(), None).expect("accepted").single;
    assert!(single(r#"{"channel":"c","data":1}"#) && single(r#"{"everyone":true,"data":1}"#));
    assert!(!single(r#"{"channels":["c"],"data":1}"#) && !single(r#"{"channel":"c","user":"u","data":1}"#));
}

proptest::proptest! {
    #[test]
    fn no_body_panics_the_parser(body in "\\PC{0,60}|[\\[\\]{}:,\"a-z0-9_ ]{0,80}") {
        let _ = publish(body.as_bytes(), None);
        let _ = batch(body.as_bytes());
    }
}
