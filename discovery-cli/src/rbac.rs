//! `discovery crd` and `discovery rbac`: what is to be applied to a cluster, once.

use std::io::Write;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use discovery_deploy::{ADMISSION, CRD, Mode};

use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
pub(crate) struct Rbac {
    /// The namespace of the pods.
    #[arg(short, long, value_parser = name)]
    namespace: Option<String>,
    /// The ServiceAccount that they run under.
    #[arg(long, value_name = "NAME", value_parser = name)]
    service_account: Option<String>,
    /// Who registers: each pod, or each container for itself.
    #[arg(long, default_value = Mode::Pod.as_str(), value_parser = modes())]
    mode: Mode,
    /// Leave out the policy, which is one for the whole cluster.
    #[arg(long)]
    no_admission_policy: bool,
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    let parser = PossibleValuesParser::new(Mode::ALL.map(Mode::as_str));
    parser.map(|chosen| Mode::ALL.into_iter().find(|mode| mode.as_str() == chosen).unwrap_or_default())
}

/// A name that Kubernetes would take for either: it stands in what is printed.
fn name(text: &str) -> Result<String, &'static str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let named = text.len() <= 253 && text.chars().all(inner) && ends(text.chars().next()) && ends(text.chars().last());
    named.then(|| text.to_owned()).ok_or("expected lower case letters, digits, - and .")
}

pub(crate) fn crd() -> Outcome {
    print(CRD)
}

pub(crate) fn rbac(arguments: &Rbac) -> Outcome {
    let Rbac { namespace, service_account, mode, no_admission_policy } = arguments;
    let mut text = discovery_deploy::rbac(namespace.as_deref(), service_account.as_deref(), *mode);
    if !no_admission_policy {
        text.push_str("---\n");
        text.push_str(ADMISSION);
    }
    print(&text)
}

fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}
