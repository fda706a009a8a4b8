//! The names of links and failures. Programs and the manual go by them, so they stay.

use super::{State, Step};

/// A link of the chain, in the order in which they are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Link {
    /// The pod exists, has a node and an address, and is not leaving.
    Pod,
    /// The pod has the discovery label (container mode).
    Label,
    /// A Service has the discovery label (pod mode).
    Service,
    /// It selects the pod (pod mode).
    Selector,
    /// An EndpointSlice with the label holds the pod (pod mode).
    Slice,
    /// The slice, or in container mode the pod's status, says that it is ready.
    Ready,
    /// The slice speaks of this pod and not of another one of its name (pod mode).
    Uid,
    /// The resource with its records exists.
    Resource,
    /// It belongs to this pod.
    Owner,
    /// No other ready resource has the same instance id.
    Instance,
    /// It holds records.
    Entries,
    /// They can be read by those who ask for their kind.
    Decoded,
}

impl Link {
    /// Its name: `pod`, `label`, `service`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Label => "label",
            Self::Service => "service",
            Self::Selector => "selector",
            Self::Slice => "slice",
            Self::Ready => "ready",
            Self::Uid => "uid",
            Self::Resource => "resource",
            Self::Owner => "owner",
            Self::Instance => "instance",
            Self::Entries => "entries",
            Self::Decoded => "decoded",
        }
    }
}

/// What can be wrong with a link. `docs/kubernetes.md` has a paragraph for each, under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// There is no pod of this name.
    NoSuchPod,
    /// The pod is being deleted.
    Terminating,
    /// The pod has ended, and will not run again.
    PodFinished,
    /// No node has been found for the pod.
    NotScheduled,
    /// The pod has no address yet.
    NoAddress,
    /// No Service with the label is there, and none that selects the pod.
    NoService,
    /// A Service selects the pod, and lacks the label.
    ServiceWithoutLabel,
    /// Services with the label select other pods.
    SelectsOthers,
    /// A Service with the label tells that its pods are ready before they are.
    PublishesNotReady,
    /// No EndpointSlice holds the pod.
    NotInSlice,
    /// The EndpointSlice that holds the pod lacks the label.
    SliceWithoutLabel,
    /// An EndpointSlice holds the pod's address, and does not say whose it is.
    SliceNamesNoPod,
    /// The pod, or the container, is not ready.
    NotReady,
    /// The EndpointSlice does not say whether the pod is ready.
    ReadinessUnknown,
    /// The EndpointSlice speaks of another pod of this name.
    AnotherUid,
    /// Two pods of this name are ready, according to EndpointSlices.
    TwoUids,
    /// The pod lacks the label (container mode).
    PodWithoutLabel,
    /// There is no such container, or nothing is known of it yet.
    NoSuchContainer,
    /// The cluster does not know the resource type.
    NoDefinition,
    /// The pod has stored nothing.
    NoResource,
    /// The pod registers in the other mode than the reader's.
    OtherMode,
    /// The resource belongs to no pod.
    NoOwner,
    /// The resource belongs to another pod, or to an earlier one of this name.
    AnotherOwner,
    /// Another ready resource has the same instance id.
    IdCollision,
    /// What the resource holds is no document.
    InvalidData,
    /// The resource holds no record.
    NoEntries,
    /// Entries of the resource name no record.
    UnreadableEntries,
    /// Another resource's record is shown under the same key.
    KeyTaken,
    /// Values are not what their kinds ask for.
    Undecodable,
}

impl Failure {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NoSuchPod,
        Self::Terminating,
        Self::PodFinished,
        Self::NotScheduled,
        Self::NoAddress,
        Self::NoService,
        Self::ServiceWithoutLabel,
        Self::SelectsOthers,
        Self::PublishesNotReady,
        Self::NotInSlice,
        Self::SliceWithoutLabel,
        Self::SliceNamesNoPod,
        Self::NotReady,
        Self::ReadinessUnknown,
        Self::AnotherUid,
        Self::TwoUids,
        Self::PodWithoutLabel,
        Self::NoSuchContainer,
        Self::NoDefinition,
        Self::NoResource,
        Self::OtherMode,
        Self::NoOwner,
        Self::AnotherOwner,
        Self::IdCollision,
        Self::InvalidData,
        Self::NoEntries,
        Self::UnreadableEntries,
        Self::KeyTaken,
        Self::Undecodable,
    ];

    /// Its name, as programs and the manual know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchPod => "no-such-pod",
            Self::Terminating => "terminating",
            Self::PodFinished => "pod-finished",
            Self::NotScheduled => "not-scheduled",
            Self::NoAddress => "no-address",
            Self::NoService => "no-service",
            Self::ServiceWithoutLabel => "service-without-label",
            Self::SelectsOthers => "selects-others",
            Self::PublishesNotReady => "publishes-not-ready",
            Self::NotInSlice => "not-in-slice",
            Self::SliceWithoutLabel => "slice-without-label",
            Self::SliceNamesNoPod => "slice-names-no-pod",
            Self::NotReady => "not-ready",
            Self::ReadinessUnknown => "readiness-unknown",
            Self::AnotherUid => "another-uid",
            Self::TwoUids => "two-uids",
            Self::PodWithoutLabel => "pod-without-label",
            Self::NoSuchContainer => "no-such-container",
            Self::NoDefinition => "no-definition",
            Self::NoResource => "no-resource",
            Self::OtherMode => "other-mode",
            Self::NoOwner => "no-owner",
            Self::AnotherOwner => "another-owner",
            Self::IdCollision => "id-collision",
            Self::InvalidData => "invalid-data",
            Self::NoEntries => "no-entries",
            Self::UnreadableEntries => "unreadable-entries",
            Self::KeyTaken => "key-taken",
            Self::Undecodable => "undecodable",
        }
    }
}

impl Step {
    pub(super) fn holds(link: Link, text: impl Into<String>) -> Self {
        Self { link, state: State::Holds, text: text.into(), failure: None, advice: String::new() }
    }

    pub(super) fn unknown(link: Link, text: impl Into<String>) -> Self {
        Self { state: State::Unknown, ..Self::holds(link, text) }
    }

    pub(super) fn warns(link: Link, failure: Failure, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warns, failure: Some(failure), advice: advice.into(), ..Self::holds(link, text) }
    }

    pub(super) fn breaks(link: Link, failure: Failure, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Breaks, ..Self::warns(link, failure, text, advice) }
    }
}
