//! Limits of block devices as control files: each number a file of its own on v1, a line of one file on v2.

use super::Version;
use super::limits::{BlockIo, Device, Setting, put, put_optional};

impl BlockIo {
    pub(super) fn put(&self, settings: &mut Vec<Setting>, version: Option<Version>) {
        match version {
            Some(Version::V2) => self.put_v2(settings),
            _ => self.put_v1(settings),
        }
    }

    fn put_v1(&self, settings: &mut Vec<Setting>) {
        let weight = |weight: Option<u16>| weight.filter(|&weight| weight > 0).map(|weight| weight.to_string());
        // Which of the two a kernel has depends on its schedulers.
        put_optional(settings, "blkio", "blkio.weight", weight(self.weight));
        put_optional(settings, "blkio", "blkio.bfq.weight", weight(self.weight));
        put_optional(settings, "blkio", "blkio.leaf_weight", weight(self.leaf_weight));
        for (Device(major, minor), weight) in &self.device_weights {
            let value = Some(format!("{major}:{minor} {weight}"));
            put_optional(settings, "blkio", "blkio.weight_device", value.clone());
            put_optional(settings, "blkio", "blkio.bfq.weight_device", value);
        }
        for (Device(major, minor), weight) in &self.device_leaf_weights {
            let value = Some(format!("{major}:{minor} {weight}"));
            put_optional(settings, "blkio", "blkio.leaf_weight_device", value);
        }
        let throttles = [
            ("blkio.throttle.read_bps_device", &self.read_bytes),
            ("blkio.throttle.write_bps_device", &self.write_bytes),
            ("blkio.throttle.read_iops_device", &self.reads),
            ("blkio.throttle.write_iops_device", &self.writes),
        ];
        for (file, list) in throttles {
            for (Device(major, minor), rate) in list {
                put(settings, "blkio", file, Some(format!("{major}:{minor} {rate}")));
            }
        }
    }

    fn put_v2(&self, settings: &mut Vec<Setting>) {
        let weight = self.weight.filter(|&weight| weight > 0);
        put_optional(settings, "io", "io.bfq.weight", weight.map(|weight| weight.to_string()));
        put_optional(settings, "io", "io.weight", weight.map(|weight| scaled(weight).to_string()));
        for (Device(major, minor), weight) in &self.device_weights {
            put_optional(settings, "io", "io.bfq.weight", Some(format!("{major}:{minor} {weight}")));
            put_optional(settings, "io", "io.weight", Some(format!("{major}:{minor} {}", scaled(*weight))));
        }
        let throttles =
            [("rbps", &self.read_bytes), ("wbps", &self.write_bytes), ("riops", &self.reads), ("wiops", &self.writes)];
        for (name, list) in throttles {
            for (Device(major, minor), rate) in list {
                // Zero stands for no limit, as on v1.
                let rate = if *rate == 0 { "max".to_owned() } else { rate.to_string() };
                put(settings, "io", "io.max", Some(format!("{major}:{minor} {name}={rate}")));
            }
        }
    }
}

/// v1's weights (10 to 1000) on v2's scale (1 to 10000).
fn scaled(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, limits: &BlockIo) -> Vec<String> {
        let mut settings = Vec::new();
        limits.put(&mut settings, Some(version));
        settings.iter().map(|it| format!("{} {}", it.file, it.value)).collect()
    }

    #[test]
    fn each_version_has_its_own_files() {
        let limits = BlockIo {
            weight: Some(1000),
            read_bytes: vec![(Device(8, 0), 1024)],
            writes: vec![(Device(8, 0), 0)],
            ..BlockIo::default()
        };
        let v1 = [
            "blkio.weight 1000",
            "blkio.bfq.weight 1000",
            "blkio.throttle.read_bps_device 8:0 1024",
            "blkio.throttle.write_iops_device 8:0 0",
        ];
        assert_eq!(written(Version::V1, &limits), v1);
        let v2 = ["io.bfq.weight 1000", "io.weight 10000", "io.max 8:0 rbps=1024", "io.max 8:0 wiops=max"];
        assert_eq!(written(Version::V2, &limits), v2);
        assert_eq!(scaled(10), 1);
    }
}
