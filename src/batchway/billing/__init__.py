"""What tokens cost: dated prices as data, and estimates made from them. Pure: nothing here spends, holds or stores."""
