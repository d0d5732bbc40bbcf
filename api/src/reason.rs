//! Each word that a status or an event gives as its reason: API to those who read it, so it stands here once.

/// Of a container that waits.
pub mod waiting {
    /// The sandbox, the volumes or the container itself are being made.
    pub const CONTAINER_CREATING: &str = "ContainerCreating";
    /// Init containers have not ended yet.
    pub const POD_INITIALIZING: &str = "PodInitializing";
    /// It ended too often; the next start is later.
    pub const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";
    /// Its image could not be pulled.
    pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
    /// Its image could not be pulled; the next try is later.
    pub const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
    /// Its image is not here and must not be pulled.
    pub const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
    /// Its image's name makes no sense.
    pub const INVALID_IMAGE_NAME: &str = "InvalidImageName";
    /// Its configuration makes no sense, or names what is not there.
    pub const CREATE_CONTAINER_CONFIG_ERROR: &str = "CreateContainerConfigError";
    /// It could not be set up.
    pub const CREATE_CONTAINER_ERROR: &str = "CreateContainerError";
    /// Its program could not be run.
    pub const RUN_CONTAINER_ERROR: &str = "RunContainerError";
}

/// Of a container that ended.
pub mod terminated {
    /// With exit code 0.
    pub const COMPLETED: &str = "Completed";
    /// With another exit code.
    pub const ERROR: &str = "Error";
    /// By the kernel's OOM killer.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// Its program could not be run.
    pub const CONTAINER_CANNOT_RUN: &str = "ContainerCannotRun";
    /// Nobody knows how: its shim is gone.
    pub const CONTAINER_STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
}

/// Of a pod's condition.
pub mod condition {
    /// Some containers are not ready.
    pub const CONTAINERS_NOT_READY: &str = "ContainersNotReady";
    /// Some init containers have not ended.
    pub const CONTAINERS_NOT_INITIALIZED: &str = "ContainersNotInitialized";
    /// All containers ended well.
    pub const POD_COMPLETED: &str = "PodCompleted";
    /// The pod failed.
    pub const POD_FAILED: &str = "PodFailed";
    /// A condition that the pod waits for is not true.
    pub const READINESS_GATES_NOT_READY: &str = "ReadinessGatesNotReady";
}

/// Of a pod as a whole.
pub mod pod {
    /// It ran longer than `activeDeadlineSeconds`.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// The node does not run it.
    pub const EVICTED: &str = "Evicted";
}

/// Of an event about a pod.
pub mod event {
    /// An image is being pulled.
    pub const PULLING: &str = "Pulling";
    /// An image is here.
    pub const PULLED: &str = "Pulled";
    /// A container was set up.
    pub const CREATED: &str = "Created";
    /// A container's program runs.
    pub const STARTED: &str = "Started";
    /// A container is being stopped.
    pub const KILLING: &str = "Killing";
    /// The next try is later.
    pub const BACK_OFF: &str = "BackOff";
    /// A probe failed.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// A container or image could not be had.
    pub const FAILED: &str = "Failed";
    /// A volume could not be set up.
    pub const FAILED_MOUNT: &str = "FailedMount";
    /// The sandbox could not be made.
    pub const FAILED_CREATE_POD_SAND_BOX: &str = "FailedCreatePodSandBox";
    /// The sandbox was lost and is made anew.
    pub const SANDBOX_CHANGED: &str = "SandboxChanged";
    /// A pod could not be ended.
    pub const FAILED_KILL_POD: &str = "FailedKillPod";
    /// A `postStart` handler failed.
    pub const FAILED_POST_START_HOOK: &str = "FailedPostStartHook";
    /// A `preStop` handler failed.
    pub const FAILED_PRE_STOP_HOOK: &str = "FailedPreStopHook";
    /// The pod asks for something that makes no sense.
    pub const FAILED_VALIDATION: &str = "FailedValidation";
    /// The pod asks for something that this node does not do; it runs without.
    pub const NOT_SUPPORTED: &str = "NotSupported";
    /// The image is not here and must not be pulled.
    pub const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
    /// The image could not be looked at.
    pub const INSPECT_FAILED: &str = "InspectFailed";
}
