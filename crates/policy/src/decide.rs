//! From what the packages answered to one decision: deny, then nothing allows, then obligations nobody here can
//! meet, then approval, then permit with what it obliges to. A package that failed denies the call, whatever the others said.

use model::{Code, Decision, Reason, Retry, Verdict};

use crate::obligation::Obliged;

/// What one package answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) allow: Vec<Reason>,
    pub(crate) deny: Vec<Reason>,
    pub(crate) approval: Vec<Reason>,
    pub(crate) obligations: Obliged,
    pub(crate) delegate: Vec<Reason>,
    pub(crate) manage: Vec<Reason>,
}

/// Why a package gave no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It ran into an error.
    Error(String),
    /// It took longer than it may.
    Budget(String),
}

/// The decision that the packages' outcomes, in order, come to.
pub(crate) fn combine(outcomes: Vec<(&str, Result<Answers, Failure>)>) -> Decision {
    let mut all = Answers::default();
    let mut failures = Vec::new();
    let mut failed = None;
    for (package, outcome) in outcomes {
        match outcome {
            Ok(answers) => {
                all.allow.extend(answers.allow);
                all.deny.extend(answers.deny);
                all.approval.extend(answers.approval);
                all.obligations.extend(answers.obligations);
            }
            Err(failure) => {
                let code = failure.code();
                failed.get_or_insert(code);
                failures.push(failure.reason(package));
            }
        }
    }
    // A rule that denies is a better answer than another package's failure, and as final.
    if !all.deny.is_empty() {
        all.deny.extend(failures);
        return denied(Code::PolicyDenied, all.deny);
    }
    if let Some(code) = failed {
        return denied(code, failures);
    }
    if all.allow.is_empty() {
        return denied(Code::PolicyNoAllow, Vec::new());
    }
    let obligations = match all.obligations.bounded() {
        Ok(obligations) => obligations,
        Err(unknown) => return denied(Code::ObligationUnknown, unknown),
    };
    if !all.approval.is_empty() {
        for reason in &mut all.approval {
            // Nobody can be asked yet: the call itself has to change.
            reason.retry = Some(Retry::AfterChange);
        }
        let code = Some(Code::ApprovalRequired);
        return Decision { verdict: Verdict::ApprovalRequired, code, reasons: all.approval, obligations };
    }
    Decision { verdict: Verdict::Permit, code: None, reasons: all.allow, obligations }
}

/// A denial before any package was asked.
pub(crate) fn refused(code: Code, reason: &str, internal: String) -> Decision {
    let reason = Reason {
        code: reason.to_owned(),
        message: None,
        internal: Some(internal),
        retry: None,
        source: "countersign".to_owned(),
    };
    denied(code, vec![reason])
}

fn denied(code: Code, reasons: Vec<Reason>) -> Decision {
    Decision { verdict: Verdict::Deny, code: Some(code), reasons, obligations: Vec::new() }
}

impl Failure {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Error(_) => Code::PolicyError,
            Self::Budget(_) => Code::PolicyBudget,
        }
    }

    pub(crate) fn reason(self, package: &str) -> Reason {
        let code = self.code();
        let (Self::Error(internal) | Self::Budget(internal)) = self;
        Reason {
            code: code.as_str().to_owned(),
            message: Some(format!("The policy package {package} gave no answer.")),
            internal: Some(internal),
            retry: None,
            source: package.to_owned(),
        }
    }
}
