//! The signature algorithms a token may have: asymmetric ones only, each bound to one kind of key.

use aws_lc_rs::signature::{self, RsaParameters, VerificationAlgorithm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A JWS algorithm (RFC 7518 §3.1, RFC 8037, RFC 9864). There is no `none` and no HMAC to be confused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are those of the registry")]
pub enum Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
}

impl Algorithm {
    /// The algorithm of that name, case and all. `Ed25519` (RFC 9864) is the fully specified name of `EdDSA` with
    /// the only curve that is accepted here.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            _ => return None,
        })
    }

    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    /// Whether its keys are RSA keys, which fit several algorithms.
    pub(crate) const fn is_rsa(self) -> bool {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => true,
            Self::Es256 | Self::Es384 | Self::EdDsa => false,
        }
    }

    /// How the library verifies it.
    pub(crate) fn library(self) -> Library {
        match self {
            Self::Es256 => Library::Point(&signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Library::Point(&signature::ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Library::Point(&signature::ED25519),
            Self::Rs256 => Library::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Library::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Library::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Library::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Library::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Library::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
        }
    }
}

/// The library's name for an algorithm, by the kind of its keys.
pub(crate) enum Library {
    /// A point on a curve.
    Point(&'static dyn VerificationAlgorithm),
    /// Modulus and exponent.
    Rsa(&'static RsaParameters),
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
