//! A network that joins machines, as an Ethernet switch would: 192.168.77.0/24, the switch itself at .1.

use crate::machine::Machine;

/// A switch; gone when dropped.
#[derive(Debug)]
pub struct Switch {
    machine: Machine,
}

impl Switch {
    /// A switch without machines yet.
    pub fn new() -> Self {
        let machine = Machine::start("switch");
        machine.shell(
            "ip link add switch type bridge
             ip link set switch up
             ip address add 192.168.77.1/24 dev switch",
        );
        Self { machine }
    }

    /// Joins a machine as `192.168.77.<number>`, with the switch as its way to everywhere.
    pub fn join(&self, machine: &Machine, number: u8) -> String {
        let address = format!("192.168.77.{number}");
        self.machine.shell(&format!(
            "ip link add port{number} type veth peer name eth0
             ip link set port{number} master switch up"
        ));
        // The peer goes to the machine by its first process, which only this machine's processes can name.
        let moved = std::process::Command::new("nsenter")
            .arg(format!("--target={}", self.machine.first_process()))
            .args(["--net", "ip", "link", "set", "eth0", "netns", &machine.first_process().to_string()])
            .output()
            .expect("nsenter is part of util-linux");
        crate::machine::succeeded(&moved, "move the link to the machine");
        machine.shell(&format!(
            "ip link set eth0 up
             ip address add {address}/24 dev eth0
             ip route add default via 192.168.77.1"
        ));
        address
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}
