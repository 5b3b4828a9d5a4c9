//! The certificate of `tidegate dev --tls`: made once, kept in the data directory, signed by itself.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use tidegate_gateway::TlsFiles;

/// How long one is good for: browsers refuse more than 398 days.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// With less time left it is made anew.
const TIME_LEFT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum SelfSignedError {
    #[error("{} cannot be written: {source}; choose another directory with --data-dir", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("certificate could not be made: {0}; bring one with --tls-cert and --tls-key")]
    Make(#[from] rcgen::Error),
}

/// The certificate in the data directory, made if there is none that is good for a while. Clients that trust it once
/// trust it until then.
pub(super) fn files(data_dir: &Path, host: &str) -> Result<TlsFiles, SelfSignedError> {
    let directory = data_dir.join("tls");
    let files = TlsFiles { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
    let now = SystemTime::now();
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let needed_s = (since_epoch + TIME_LEFT).as_secs();
    if files.check().is_ok_and(|expires_s| expires_s.is_some_and(|expires_s| expires_s > needed_s)) {
        return Ok(files);
    }
    let names = ["localhost", "127.0.0.1", "::1", host].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "tidegate dev");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (now - Duration::from_secs(60 * 60)).into();
    params.not_after = (now + VALIDITY).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let failed = |path: &Path, source| SelfSignedError::Write { path: path.to_owned(), source };
    std::fs::create_dir_all(&directory).map_err(|source| failed(&directory, source))?;
    for (path, text) in [(&files.key, key.serialize_pem()), (&files.cert, certificate.pem())] {
        write(path, &text).map_err(|source| failed(path, source))?;
    }
    Ok(files)
}

/// For this user only.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_anew_when_it_is_no_good() {
        let directory = tempfile::tempdir().expect("directory");
        let made = files(directory.path(), "somewhere").expect("made");
        let expires_s = made.check().expect("it is one").expect("readable");
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!((expires_s - now_s).abs_diff(VALIDITY.as_secs()) < 60);
        let text = std::fs::read(&made.cert).expect("read");
        assert_eq!(files(directory.path(), "somewhere").expect("kept"), made);
        assert_eq!(std::fs::read(&made.cert).expect("read"), text);
        std::fs::write(&made.key, "no key").expect("written");
        files(directory.path(), "somewhere").expect("made anew").check().expect("it is one");
        assert_ne!(std::fs::read(&made.cert).expect("read"), text);
    }
}
