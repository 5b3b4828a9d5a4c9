//! Revocations, as they stand in the log and cross between routers and nodes.

use tidegate_vocab::{Revocation, RevocationScope, TokenId, UserId};

use super::FrameError;
use crate::log::v1::{self as wire, revocation::Scope};

/// A revocation as a message.
#[must_use]
pub fn revocation_to_wire(revocation: &Revocation) -> wire::Revocation {
    let scope = match &revocation.scope {
        RevocationScope::IssuedBefore(seconds) => Scope::IssuedBeforeS(*seconds),
        RevocationScope::Token(id) => Scope::TokenId(id.as_str().to_owned()),
    };
    wire::Revocation { user: revocation.user.to_string(), scope: Some(scope) }
}

/// A message as a revocation.
///
/// # Errors
/// When the user or the token's id breaks its rule, or there is no scope.
pub fn revocation_from_wire(message: wire::Revocation) -> Result<Revocation, FrameError> {
    let user = UserId::parse(&message.user).map_err(|_| FrameError::Bad("user"))?;
    let scope = match message.scope.ok_or(FrameError::Missing("scope"))? {
        Scope::IssuedBeforeS(seconds) => RevocationScope::IssuedBefore(seconds),
        Scope::TokenId(id) => {
            RevocationScope::Token(TokenId::parse(&id).map_err(|_| FrameError::Bad("token id"))?)
        }
    };
    Ok(Revocation { user, scope })
}
