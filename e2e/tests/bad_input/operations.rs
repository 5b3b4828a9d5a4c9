//! Mistakes of those who run it.

use tidegate_e2e::{Server, Setup};

use crate::Rig;

#[tokio::test]
async fn unknown_config_keys() {
    for (key, nearest) in [
        ("server.pubic", "server.public"),
        ("histroy.rows", "history.rows"),
        ("log.epoch_slat", "log.epoch_salt"),
        ("namespaces.score.history_row", "history_rows"),
    ] {
        let (code, said) = Server::start_refused(Setup::new().set(key, "1")).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(key) || said.contains("--set"), "{key}: {said}");
        assert!(said.contains(nearest), "{key}: names the nearest known key: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let (code, said) = Server::start_refused(Setup::new().env("TIDEGATE__SERVER__PUBIC", "x")).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("TIDEGATE__SERVER__PUBIC") && said.contains("TIDEGATE__SERVER__PUBLIC"), "{said}");
    // All at once, and values too.
    let wrong =
        Setup::new().set("history.rows", "many").set("limits.ping_interval", "1h").set("drain.widnow", "1s");
    let (code, said) = Server::start_refused(wrong).await;
    assert_eq!(code, 2, "{said}");
    for key in ["history.rows", "limits.ping_interval", "drain.window"] {
        assert!(said.contains(key), "{key}: {said}");
    }
    let exposed = Setup::new().set("server.public", "0.0.0.0:0");
    let (code, said) = Server::start_refused(exposed).await;
    assert!(code == 2 && said.contains("--i-know"), "{said}");
    Rig::start(Setup::new()).await.end().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let rig = Rig::start(Setup::new()).await;
    let taken = rig.server.public().to_string();
    let (code, said) = Server::start_refused(Setup::new().set("server.public", &taken)).await;
    assert!(code != 0 && said.contains(&taken), "{code}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    rig.end().await;
}

#[tokio::test]
async fn one_data_directory_has_one_process() {
    let rig = Rig::start(Setup::new()).await;
    let directory = rig.server.data_dir();
    let (code, said) = Server::start_refused(Setup::new().data_dir(&directory)).await;
    assert!(code != 0 && said.contains(&directory.display().to_string()), "{code}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    rig.end().await;
}
