//! Why a pod's records are shown, or are not: the chain from the pod to what others read, link by link.
//!
//! Pure: a [`Survey`] goes in, what it means comes out. The verdict is the join's own, so that an explanation never says
//! other than what views show; the walk finds the link that it comes from.

mod index;
mod pod;
mod readiness;
mod records;
mod words;

use discovery_core::{InstanceId, Key, Result};

use crate::config::Mode;
use crate::survey::Survey;
use index::{Index, Subject};

pub use words::{Failure, Link};

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds.
    Holds,
    /// It holds, with something that should be looked at.
    Warns,
    /// The chain breaks here.
    Breaks,
    /// It could not be looked at.
    Unknown,
}

/// One link, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which link.
    pub link: Link,
    /// How it is.
    pub state: State,
    /// What was found, on one line.
    pub text: String,
    /// What is wrong with it, unless it holds or could not be looked at.
    pub failure: Option<Failure>,
    /// What to do, on one line. Empty where nothing is to be done.
    pub advice: String,
}

/// What becomes of a pod's records, or of those of one of its containers, and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container, in container mode.
    pub container: Option<String>,
    /// The name of the resource that holds the records.
    pub resource: String,
    /// The instance id that the name stands for.
    pub instance: InstanceId,
    /// The records that readers see: a pod with none is not discovered.
    pub records: Vec<Key>,
    /// The links as far as they were followed: the pod's readiness first, then its resource.
    pub steps: Vec<Step>,
}

impl Explanation {
    /// Whether readers see any record of it.
    pub fn is_discovered(&self) -> bool {
        !self.records.is_empty()
    }

    /// Where the chain breaks. There are two at most: readiness and records are looked at each for itself.
    pub fn breaks(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.state == State::Breaks)
    }
}

impl Survey {
    /// Explains one pod in each namespace that has it or a resource of its name; where none has, that. In container
    /// mode there is one explanation for each container that takes part, or for each where none does.
    ///
    /// `decode` says whether a record can be read by those who ask for its kind.
    pub fn explain(&self, pod: &str, decode: impl Fn(&Key, &[u8]) -> Result<()>) -> Vec<Explanation> {
        let index = Index::new(self);
        let subjects = index.subjects_of(pod);
        subjects.iter().map(|subject| index.explanation(subject, &decode)).collect()
    }

    /// Explains every pod that takes part: it has a resource, or a Service with the label selects it, or it is in a slice
    /// with the label, or has the label itself. Resources without a pod are among them.
    ///
    /// `decode` says whether a record can be read by those who ask for its kind.
    pub fn explain_all(&self, decode: impl Fn(&Key, &[u8]) -> Result<()>) -> Vec<Explanation> {
        let index = Index::new(self);
        let subjects = index.subjects();
        subjects.iter().map(|subject| index.explanation(subject, &decode)).collect()
    }
}

impl Index<'_> {
    fn explanation(&self, subject: &Subject<'_>, decode: &impl Fn(&Key, &[u8]) -> Result<()>) -> Explanation {
        let mut steps = match self.survey.mode {
            Mode::Pod => self.readiness_of_pod(subject),
            Mode::Container => self.readiness_of_container(subject),
        };
        let (rest, records) = self.records_of(subject, decode);
        // What does not run has stored nothing: that would be told as if it were another fault.
        let runs = !steps.iter().any(|step| step.link == Link::Pod && step.state == State::Breaks);
        steps.extend(rest.into_iter().filter(|step| runs || step.failure != Some(Failure::NoResource)));
        if self.join.shown(&subject.resource()).is_some() {
            // Shown all the same: what is not as it should be is about to change that.
            for step in steps.iter_mut().filter(|step| step.link < Link::Entries && step.state == State::Breaks) {
                step.state = State::Warns;
            }
        }
        Explanation {
            namespace: subject.namespace.to_owned(),
            pod: subject.pod.to_owned(),
            container: subject.container.map(str::to_owned),
            resource: subject.resource.clone(),
            instance: discovery_dynamo::layout::kubernetes_instance_id(&subject.resource),
            records,
            steps,
        }
    }
}
#[cfg(test)]
mod tests;
