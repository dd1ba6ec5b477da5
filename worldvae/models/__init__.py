"""World models: the protocol they implement, the parts they are built from, and the models themselves."""
