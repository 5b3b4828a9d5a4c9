//! Compiles the .proto files with protox, so that no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 9] = [
    "tidegate/cluster/v1/cluster.proto",
    "tidegate/control/v1/control.proto",
    "tidegate/deliver/v1/deliver.proto",
    "tidegate/log/v1/log.proto",
    "tidegate/presence/v1/presence.proto",
    "tidegate/publish/v1/publish.proto",
    "tidegate/registry/v1/registry.proto",
    "tidegate/upstream/v1/upstream.proto",
    "tidegate/users/v1/users.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
