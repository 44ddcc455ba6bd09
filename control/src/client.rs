//! The roles' half: enrol for an identity, keep it renewed, and follow the control plane.
//!
//! ```text
//! enrol ──► Identity ──► keep_renewed            (one task)
//!                 ├────► Session::start ──► next ──► Offer { snapshot, answer }
//!                 └────► withdrawn                   (once, at the end)
//! ```
//!
//! A role loses nothing when the control plane is away: a session connects again for ever, and until it does the role works on
//! what it has. These connections never go through the data plane, so that no breaker or limit of users' traffic stands between
//! a role and its configuration (linkerd2#11156).

mod backoff;
mod connect;
mod enrolment;
mod renewal;
mod session;
mod withdrawal;

pub use enrolment::{Claim, TokenSource, enrol};
pub(crate) use renewal::Life;
pub use renewal::{keep_renewed, renew};
pub use session::{Health, Hello, Offer, Options, Refusal, Session};
pub use withdrawal::withdrawn;

/// Why the control plane gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be reached, or not now: a later attempt may succeed.
    #[error("the control plane at {control} cannot be reached: {why}")]
    Unreachable {
        /// Its address, as it was given.
        control: String,
        /// What happened.
        why: String,
    },
    /// Who answers there is not this mesh's control plane by the roots that the role was given: another attempt would end the same way.
    #[error("who answers at {control} is not proven to be this mesh's control plane by the roots given here: {why}")]
    Unproven {
        /// Its address, as it was given.
        control: String,
        /// What is wrong with who answered.
        why: String,
    },
    /// It said no: another attempt would end the same way.
    #[error("the control plane refused: {0}")]
    Refused(String),
    /// There is no token to show.
    #[error("the token cannot be read: {0}")]
    Token(#[source] std::io::Error),
    /// A certificate that should be renewed was not, and no token helped.
    #[error("{renewal}; and by its token: {token}")]
    Neither {
        /// Why it was not renewed.
        renewal: Box<Error>,
        /// Why the role could not enrol anew.
        token: Box<Error>,
    },
    /// The identity, the roots or what came back cannot be used.
    #[error(transparent)]
    Identity(#[from] runtime::identity::Error),
}

impl Error {
    fn of(control: &str, status: &tonic::Status) -> Self {
        use tonic::Code;
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented => {
                Self::Refused(status.message().to_owned())
            }
            _ => Self::Unreachable { control: control.to_owned(), why: status.message().to_owned() },
        }
    }

    /// Whether a later attempt may succeed.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // Who is asked about the token has answered, so it was no matter of reach that the certificate was not renewed.
            Self::Neither { token, .. } => token.is_temporary(),
            Self::Unproven { .. } | Self::Refused(_) | Self::Token(_) | Self::Identity(_) => false,
        }
    }
}
