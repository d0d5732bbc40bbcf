//! Images, in the words of the engine's clients.

use berth_rootfs::{Image, Keyring, Reference};

use crate::error::chain;
use crate::status::ImageStatus;
use crate::{Error, Inner, PullPolicy};

impl Inner {
    /// Makes an image present.
    pub(crate) async fn pull(
        &self,
        name: &str,
        policy: PullPolicy,
        keyring: Option<Keyring>,
    ) -> Result<ImageStatus, Error> {
        let reference = parse(name)?;
        if policy == PullPolicy::IfNotPresent
            && let Some(present) = self.image(name)?
        {
            return Ok(status(&present));
        }
        match self.store.pull(&reference, keyring, None).await {
            Ok(image) => Ok(status(&image)),
            Err(error) => Err(Error::Pull { reference: name.to_owned(), message: chain(&error) }),
        }
    }

    /// An image by reference or id.
    pub(crate) fn image(&self, name: &str) -> Result<Option<Image>, Error> {
        if !name.starts_with("sha256:") {
            parse(name)?;
        }
        self.store.image(name).map_err(internal)
    }

    /// All images.
    pub(crate) fn images(&self) -> Result<Vec<ImageStatus>, Error> {
        Ok(self.store.images().map_err(internal)?.iter().map(status).collect())
    }
}

fn parse(name: &str) -> Result<Reference, Error> {
    name.parse().map_err(|error: berth_rootfs::Error| Error::InvalidImageName {
        reference: name.to_owned(),
        message: chain(&error),
    })
}

fn internal(error: berth_rootfs::Error) -> Error {
    Error::Internal { message: chain(&error) }
}

/// An image as the engine's clients know it.
pub(crate) fn status(image: &Image) -> ImageStatus {
    ImageStatus {
        id: image.id.clone(),
        tags: image.tags.clone(),
        digests: image.digests.clone(),
        size_bytes: image.size_bytes,
        user: image.config.config().as_ref().and_then(|config| config.user().clone()).filter(|user| !user.is_empty()),
    }
}
