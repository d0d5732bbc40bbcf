//! Ports by number or name.

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Why a port is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not between 1 and 65535.
    #[error("port {number} is not between 1 and 65535")]
    OutOfRange {
        /// As it was given.
        number: String,
    },
    /// No port of the container has this name.
    #[error("container {container:?} has no port named {name:?}")]
    UnknownName {
        /// The container.
        container: String,
        /// The name.
        name: String,
    },
}

/// The number of a port that is given by number, by name of one of the container's ports, or as a number in text.
///
/// # Errors
/// When it is out of range or nobody has that name.
pub fn resolve(port: &IntOrString, container: &Container) -> Result<u16, PortError> {
    match port {
        IntOrString::Int(number) => in_range(i64::from(*number)),
        IntOrString::String(name) => match by_name(name, container) {
            Some(number) => in_range(i64::from(number)),
            None => match name.parse::<i64>() {
                Ok(number) => in_range(number),
                Err(_) => Err(PortError::UnknownName { container: container.name.clone(), name: name.clone() }),
            },
        },
    }
}

/// A number as a port.
///
/// # Errors
/// When it is out of range.
pub fn in_range(number: i64) -> Result<u16, PortError> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(PortError::OutOfRange { number: number.to_string() }),
    }
}

fn by_name(name: &str, container: &Container) -> Option<i32> {
    let ports = container.ports.as_deref().unwrap_or_default();
    ports.iter().find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ContainerPort;

    #[test]
    fn a_port_is_a_number_a_name_or_a_number_in_text() {
        let ports = vec![ContainerPort { container_port: 8080, name: Some("web".to_owned()), ..Default::default() }];
        let container = Container { name: "c".to_owned(), ports: Some(ports), ..Default::default() };
        let text = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(resolve(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(resolve(&text("web"), &container), Ok(8080));
        assert_eq!(resolve(&text("81"), &container), Ok(81));
        assert!(resolve(&text("db"), &container).is_err());
        assert!(resolve(&IntOrString::Int(0), &container).is_err());
        assert!(resolve(&IntOrString::Int(65536), &container).is_err());
    }
}
