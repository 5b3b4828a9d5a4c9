//! Origins of web pages.

use super::Check;

impl Check {
    pub(super) fn origins(&mut self, origins: &[String]) {
        for origin in origins {
            if !is_origin(origin) {
                let text = format!(
                    "`{origin}` is not an origin: write scheme://host[:port] in lower case and without a path, such as \
                     https://app.example.com or http://localhost:*"
                );
                self.refuse("cors.allowed_origins", text);
            }
        }
    }
}

/// `scheme://host[:port]` in lower case, as browsers send it; the port may be `*`.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte))
        }
    };
    let port_ok = port.is_none_or(|port| port == "*" || port.parse::<u16>().is_ok_and(|port| port > 0));
    scheme_ok && host_ok && port_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for good in [
            "https://app.example.com",
            "http://localhost:*",
            "http://127.0.0.1:8080",
            "http://[::1]:3000",
            "http://[::1]",
            "capacitor://localhost",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "localhost",
            "https://",
            "https://A.example",
            "https://a/",
            "https://a/path",
            "https://a:0",
            "https://a:99999",
            "https://*.example.com",
            "https://[::1",
            "null",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
