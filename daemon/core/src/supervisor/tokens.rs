//! Run tokens: how a call from inside a run proves which run it comes from.
//!
//! A token is `cr1.<project>/<task>/<run>.<64 hex digits>`, the digits an HMAC-SHA-256 of the run's key under a secret
//! of this root (`.conductor/secret`, 0600). So it needs no storage, survives a restart of conductord with the run that
//! holds it, and means nothing on another root. Whether the run lives is for the caller to check.

use std::io;
use std::path::Path;

use conductor_shim::durable;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::types::{RunKey, TaskKey};

const PREFIX: &str = "cr1";

/// Bytes of the secret: as many as the hash gives out.
const SECRET_BYTES: usize = 32;

/// Makes and checks tokens. Its `Debug` shows nothing.
#[derive(Clone)]
pub(super) struct Tokens([u8; SECRET_BYTES]);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(..)")
    }
}

impl Tokens {
    /// Reads the secret from `path`, or makes it.
    ///
    /// # Errors
    /// It can't be read or written, or has another length.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => bytes.try_into().map(Self).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged; remove it", path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; SECRET_BYTES];
                io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut secret)?;
                durable::write_atomic(path, &secret, durable::PRIVATE)?;
                Ok(Self(secret))
            }
            Err(error) => Err(error),
        }
    }

    /// The token of a run.
    #[must_use]
    pub(super) fn issue(&self, run: &RunKey) -> String {
        let mac = self.mac(run).finalize().into_bytes();
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}.{run}.{hex}")
    }

    /// The run that a token was issued for.
    #[must_use]
    pub(super) fn verify(&self, token: &str) -> Option<RunKey> {
        let (key, hex) = token.strip_prefix(PREFIX)?.strip_prefix('.')?.rsplit_once('.')?;
        let mut parts = key.splitn(3, '/');
        let project = parts.next()?.parse().ok()?;
        let task = parts.next()?.parse().ok()?;
        let run = TaskKey::new(project, task).run(parts.next()?.parse().ok()?);
        let given: Vec<u8> = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<_>>()?;
        // Compares in constant time.
        self.mac(&run).verify_slice(&given).is_ok().then_some(run)
    }

    fn mac(&self, run: &RunKey) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(run.to_string().as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_means_its_run_on_its_root_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let tokens = Tokens::open(&folder.path().join("secret")).expect("made");
        let task = TaskKey::new("p".parse().expect("id"), "task-20260101-000000-abc".parse().expect("id"));
        let run = task.run("20260101-0000000000-1-1".parse().expect("id"));
        let token = tokens.issue(&run);
        assert_eq!(tokens.verify(&token), Some(run.clone()));
        assert_eq!(Tokens::open(&folder.path().join("secret")).expect("read").verify(&token), Some(run));
        let other = Tokens::open(&folder.path().join("other")).expect("made");
        assert_eq!(other.verify(&token), None);
        assert_eq!(tokens.verify(&token.replace("-1-1.", "-1-2.")), None);
        for bad in ["", "cr1", "cr1..", "cr1.p/x/y.00", &token[..token.len() - 2], &format!("{token}00")] {
            assert_eq!(tokens.verify(bad), None, "{bad}");
        }
    }
}
