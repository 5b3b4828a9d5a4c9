//! What must hold of the public port's certificate: it loads, and its key is its own.

use tidegate_gateway::TlsFiles;

use super::Check;
use crate::config::Profile;
use crate::config::keys::Raw;

const CERT: &str = "tls.cert_file";
const KEY: &str = "tls.key_file";

impl Check {
    /// The files, if clients connect by TLS. Only who holds connections has to have them.
    pub(super) fn tls(&mut self, raw: &Raw, profile: Profile) -> Option<TlsFiles> {
        let (cert, key) = (&raw.tls.cert_file, &raw.tls.key_file);
        match (cert.is_empty(), key.is_empty()) {
            (true, true) => return None,
            (false, true) => {
                self.refuse(CERT, format!("is set and {KEY} is not: name the file of its private key too"));
                return None;
            }
            (true, false) => {
                self.refuse(KEY, format!("is set and {CERT} is not: name the file of the certificate too"));
                return None;
            }
            (false, false) => {}
        }
        let files = TlsFiles { cert: cert.into(), key: key.into() };
        if profile.has_gateway()
            && let Err(error) = files.check()
        {
            self.refuse(if error.is_about(&files.key) { KEY } else { CERT }, error.to_string());
        }
        Some(files)
    }
}
