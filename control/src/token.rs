//! Tokens: what a role without a certificate shows to get its first one.
//!
//! A token says for which instance of which subject it was made and until when it holds, and carries a MAC (HMAC-SHA-256,
//! RFC 2104) under a secret that only the control plane and whoever starts roles know. It is not single-use: a role that
//! crashed before it kept its certificate enrols again with the same one until it expires.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use model::identity::Subject;
use model::name::Name;
use model::unit::write_duration;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

/// Longest token that is looked at, in bytes.
const TOKEN_LENGTH_MAX: usize = 1_024;
/// What the MAC covers before the claims, so that a MAC made for anything else never fits.
const PURPOSE: &[u8] = b"meshwork enrolment 1\n";
/// Length of a secret, in bytes.
const SECRET_LENGTH: usize = 32;

/// What tokens are made and verified with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LENGTH]);

/// The text is not a secret, or the operating system gave no randomness for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not 32 bytes in base64url.
    #[error("a token secret is 32 bytes in base64url, 43 characters")]
    Form,
    /// No randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who the role will be.
    #[serde(with = "text")]
    pub subject: Subject,
    /// Which instance of it the token was made for.
    pub instance: Name,
    /// Until when it holds, in seconds since 1970.
    pub expires_s: u64,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not of the form of a token.
    #[error("this is not a token")]
    Form,
    /// It was made with another secret, or altered.
    #[error("the token was not made by this mesh")]
    Forged,
    /// It held until then.
    #[error("the token expired {} ago; `meshwork token` makes another", write_duration(*since))]
    Expired {
        /// How long ago that was, in whole seconds.
        since: Duration,
    },
}

impl Secret {
    /// A fresh secret.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, SecretError> {
        let mut secret = [0; SECRET_LENGTH];
        SystemRandom::new().fill(&mut secret).map_err(|_| SecretError::Randomness)?;
        Ok(Self(secret))
    }

    /// Reads what [`Secret::to_text`] wrote; white space around it does not count.
    ///
    /// # Errors
    /// When it is not 32 bytes in base64url.
    pub fn from_text(text: &str) -> Result<Self, SecretError> {
        let bytes = BASE64URL.decode(text.trim()).map_err(|_| SecretError::Form)?;
        bytes.try_into().map(Self).map_err(|_| SecretError::Form)
    }

    /// The secret as text, for a file that only its owner may read.
    #[must_use]
    pub fn to_text(&self) -> String {
        BASE64URL.encode(self.0)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Makes a token for one instance of a subject, good until `expires_s` (seconds since 1970).
#[must_use]
pub fn mint(secret: &Secret, subject: &Subject, instance: &Name, expires_s: u64) -> String {
    let claims = Claims { subject: subject.clone(), instance: instance.clone(), expires_s };
    // Three plain fields: there is nothing in them that JSON cannot hold.
    let claims = BASE64URL.encode(serde_json::to_vec(&claims).unwrap_or_default());
    let mac = hmac::sign(&secret.key(), &covered(&claims));
    format!("{claims}.{}", BASE64URL.encode(mac.as_ref()))
}

/// Reads a token at the time `now_s` (seconds since 1970). The MAC is compared in constant time and before anything else is read.
///
/// # Errors
/// When it is none, was made with another secret, or has expired.
pub fn verify(secret: &Secret, token: &str, now_s: u64) -> Result<Claims, Refused> {
    if token.len() > TOKEN_LENGTH_MAX {
        return Err(Refused::Form);
    }
    let (claims, mac) = token.split_once('.').ok_or(Refused::Form)?;
    let mac = BASE64URL.decode(mac).map_err(|_| Refused::Form)?;
    hmac::verify(&secret.key(), &covered(claims), &mac).map_err(|_| Refused::Forged)?;
    let claims = BASE64URL.decode(claims).map_err(|_| Refused::Form)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Refused::Form)?;
    if claims.expires_s <= now_s {
        return Err(Refused::Expired { since: Duration::from_secs(now_s - claims.expires_s) });
    }
    Ok(claims)
}

fn covered(claims: &str) -> Vec<u8> {
    [PURPOSE, claims.as_bytes()].concat()
}

/// Subjects as their text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> (Subject, Name) {
        (Subject::Service(Name::new("orders").unwrap()), Name::new("orders-0").unwrap())
    }

    #[test]
    fn a_token_says_for_whom_it_was_made_until_it_expires() {
        let secret = Secret::generate().unwrap();
        let (subject, instance) = orders();
        let token = mint(&secret, &subject, &instance, 100);
        assert_eq!(verify(&secret, &token, 99), Ok(Claims { subject, instance, expires_s: 100 }));
        let ended = |since_s| Err(Refused::Expired { since: Duration::from_secs(since_s) });
        assert_eq!((verify(&secret, &token, 100), verify(&secret, &token, 160)), (ended(0), ended(60)));
        assert_eq!(ended(60).unwrap_err().to_string(), "the token expired 1m ago; `meshwork token` makes another");
    }

    #[test]
    fn nothing_else_opens_anything() {
        let secret = Secret::generate().unwrap();
        let (subject, instance) = orders();
        let token = mint(&secret, &subject, &instance, 100);
        let other = mint(&Secret::generate().unwrap(), &subject, &instance, 100);
        let (_, mac) = token.split_once('.').unwrap();
        let altered = mint(&secret, &Subject::Broker, &instance, 100);
        let (altered, _) = altered.split_once('.').unwrap();
        for (odd, why) in [
            ("", Refused::Form),
            ("token", Refused::Form),
            ("a.b!", Refused::Form),
            (other.as_str(), Refused::Forged),
            (&format!("{altered}.{mac}"), Refused::Forged),
            (&token[..token.len() - 3], Refused::Forged),
            (&format!("{}.{mac}", "a".repeat(TOKEN_LENGTH_MAX)), Refused::Form),
        ] {
            assert_eq!(verify(&secret, odd, 1), Err(why), "{odd}");
        }
    }

    #[test]
    fn a_secret_survives_its_text_and_is_not_shown() {
        let secret = Secret::generate().unwrap();
        assert_eq!(Secret::from_text(&format!("{}\n", secret.to_text())), Ok(secret.clone()));
        assert_eq!(Secret::from_text("short"), Err(SecretError::Form));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
